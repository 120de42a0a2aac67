"""Reading and decoding of image files, and their bit depth."""
