"""Augmentation: its settings, of batches on their device, and of single images in workers."""
