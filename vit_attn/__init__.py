"""Vision transformers whose attention can be trained, seen and questioned."""

__version__ = "0.1.0"
