"""Figures: maps over images, sheets of heads, curves, comparisons and confusion matrices."""
