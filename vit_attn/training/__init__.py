"""What a run needs and attention does not."""
