"""Rates and durations on this machine's processors, beside those of other programs."""
