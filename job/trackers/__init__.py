"""Runs as experiment trackers show them.

Each tracker is told by a process of its own (`serve.py`), which a thread of the command's asks
(`teller.py`): what its library prints, starts or hangs in is not in the way of training.
"""
