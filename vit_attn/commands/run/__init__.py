"""Training runs: folder, lock, configuration, callbacks, checkpoint, resumption and final report."""
