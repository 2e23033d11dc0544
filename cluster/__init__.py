"""Where a job runs and where its runs are kept."""

from job.public import offered

# In the order in which a program meets them; docs/reference.md is made from this.
PUBLIC = {
    "train": "cluster.training",
    "FinishedRun": "cluster.training",
    "launch": "cluster.workers.launch",
}
__all__ = [*PUBLIC]
__getattr__ = offered(__name__, PUBLIC)
