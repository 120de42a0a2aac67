"""Augmentation: its settings, whole batches on their device, and single images in workers."""
