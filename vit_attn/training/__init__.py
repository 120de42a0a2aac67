"""Training: loss, optimisers, schedules, fine-tuning, checkpoints and signals."""
