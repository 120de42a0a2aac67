"""Trained networks by name: predictions and attention maps for image files, and export."""
