"""Parsing options and YAML: limits, and messages of one line."""
