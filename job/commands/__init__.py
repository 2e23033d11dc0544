"""Commands of `lenet` beside those in `job/cli.py`."""
