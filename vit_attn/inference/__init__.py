"""Trained networks by name: predictions and attention maps for images of one's own, and export."""
