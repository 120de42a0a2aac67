"""Data sets of the user's own files: a folder of class folders, or a table of paths and labels."""
