"""Measurements of what the documents claim; the figures are kept in docs/results."""
