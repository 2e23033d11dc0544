"""Finished models side by side."""
