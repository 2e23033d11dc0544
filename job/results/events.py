"""TensorBoard's event files, as bytes: they are kept as any other file of a run is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = "tensorboard"


class Point(NamedTuple):
    """Values at a step of a run, and when they were reached, in seconds since the epoch."""

    step: int
    time: float
    values: Mapping[str, float]


def event_file(points: Iterable[Point]) -> bytes:
    """An event file with the values of these points."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="lenet-events-") as scratch:
        with SummaryWriter(scratch) as writer:
            for step, time, values in points:
                for tag, value in values.items():
                    writer.add_scalar(tag, value, step, time)
        return _content(Path(scratch))


def hparams_file(settings: Mapping[str, Any], values: Mapping[str, float], step: int) -> bytes:
    """An event file for TensorBoard's table of hyperparameters.

    Args:
        settings: What is compared, by name.
        values: What came of them, as scalars beside.
        step: Where they were reached.
    """
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="lenet-events-") as scratch:
        with SummaryWriter(scratch) as writer:
            writer.add_hparams(dict(settings), dict(values), "hparams", step)
        return _content(Path(scratch) / "hparams")


def _content(folder: Path) -> bytes:
    (file,) = (path for path in folder.iterdir() if path.is_file())
    return file.read_bytes()
