"""A training run: its folder, lock, configuration, checkpoint, resumption and report."""
