"""Image files of any kind as the pixels that a network takes."""
