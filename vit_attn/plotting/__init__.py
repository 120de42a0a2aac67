"""Figures: maps over images, sheets of heads, curves, comparisons of networks and confusion matrices."""
