"""Batches: sampled, read or gathered, augmented and normalised, on the host's workers or on the device."""
