"""Data sets by name: what is known of each without touching a file, and how its splits are loaded."""
