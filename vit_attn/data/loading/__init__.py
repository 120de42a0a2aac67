"""Loaders: samplers, splits in memory or read by workers, and augmented, normalised batches on the device."""
