"""Hyperparameter search and its report."""

from job.public import offered

# In the order in which a program meets them; docs/reference.md is made from this.
PUBLIC = {
    "prepare_sweep": "tuning.sweep",
    "run_sweep": "tuning.sweep",
    "read_space": "tuning.space.space",
    "Space": "tuning.space.space",
}
__all__ = [*PUBLIC]
__getattr__ = offered(__name__, PUBLIC)
