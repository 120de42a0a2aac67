"""Parsing of options and YAML: limits, renamed settings, and one-line errors."""
