"""The state of a run as one value: everything needed to go on as if nothing had happened."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from job.config.config import TrainConfig
from job.config.schedule import rate_of

Arrays = dict[str, np.ndarray]

FORMAT = 1
ARRAYS_FILE = "arrays.safetensors"
STATE_FILE = "state.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One line of the history.

    Losses are mean cross-entropies; `seconds` is the time spent in training steps,
    `images_per_second` the training rate, `val_seconds` the time of validation (0 in runs of before
    it was recorded).
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float
    val_seconds: float = 0.0


def rows_of(documents: Iterable[Mapping[str, Any]]) -> tuple[EpochRow, ...]:
    """Rows that were kept or sent as plain data. Raises TypeError where they are something else."""
    return tuple(EpochRow(**document) for document in documents)


def best_row(history: Iterable[EpochRow], best_by: str) -> EpochRow | None:
    """The first of the best epochs, None of none.

    Args:
        history: The epochs.
        best_by: The setting: the lowest validation loss is the best, or the highest validation
            accuracy and between equals the lowest loss.
    """

    def badness(row: EpochRow) -> tuple[float, ...]:
        by_loss = (row.val_loss,)
        return by_loss if best_by == "loss" else (-row.val_accuracy, *by_loss)

    return min(history, key=badness, default=None)


def steps_of(row: EpochRow, batch_size: int) -> int:
    """Steps of an epoch, from the examples that were trained in it."""
    return -(-round(row.seconds * row.images_per_second) // batch_size)


def last_rate(row: EpochRow, config: TrainConfig) -> float:
    """The learning rate of the last step of an epoch."""
    steps = steps_of(row, config.batch_size)
    return rate_of(config, row.epoch * steps - 1, config.epochs * steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """Sums over the steps of the unfinished epoch."""

    steps: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    examples: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Global steps done.
        current: Sums over the epoch in progress; its number is `len(history)`.
        history: The finished epochs.
        weights, optimizer: Arrays by variable path, in the order of the variables.
        best_epoch: The best epoch so far, from 1, as the run's `best_by` has it; 0 for none.
        best_weights: Its weights; empty before the first epoch's end.
    """

    step: int = 0
    current: EpochProgress = EpochProgress()
    history: tuple[EpochRow, ...] = ()
    best_epoch: int = 0
    weights: Arrays
    optimizer: Arrays
    best_weights: Arrays = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> EpochRow | None:
        """The row of `best_epoch`; None before the first."""
        return self.history[self.best_epoch - 1] if self.best_epoch else None

    def is_finite(self) -> bool:
        """Whether no weight and no variable of the optimizer is NaN or infinite."""
        arrays = (*self.weights.values(), *self.optimizer.values())
        return all(np.isfinite(array).all() for array in arrays)

    def to_files(self) -> dict[str, bytes]:
        """The state as the files of a checkpoint: no pickle, nothing that runs on reading."""
        groups = {"weights": self.weights, "optimizer": self.optimizer, "best": self.best_weights}
        document = {
            "format": FORMAT,
            "step": self.step,
            "current": dataclasses.asdict(self.current),
            "history": [dataclasses.asdict(row) for row in self.history],
            "best_epoch": self.best_epoch,
            # safetensors sorts by name; the order of the variables is part of the state.
            "order": {group: list(arrays) for group, arrays in groups.items()},
        }
        arrays = {
            f"{group}/{path}": np.asarray(array, order="C")
            for group, members in groups.items()
            for path, array in members.items()
        }
        return {
            ARRAYS_FILE: safetensors.numpy.save(arrays),
            STATE_FILE: json.dumps(document, indent=1).encode(),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> RunState:
        """Reads what `to_files` wrote.

        Raises:
            ValueError: The files are not a checkpoint of this format.
        """
        with _trusting():
            document = _document(files)
            arrays = safetensors.numpy.load(files[ARRAYS_FILE])
            groups = {
                group: {path: arrays[f"{group}/{path}"] for path in paths}
                for group, paths in document["order"].items()
            }
            return cls(
                step=document["step"],
                current=EpochProgress(**document["current"]),
                history=rows_of(document["history"]),
                best_epoch=document["best_epoch"],
                weights=groups["weights"],
                optimizer=groups["optimizer"],
                best_weights=groups["best"],
            )


def history_of(files: Mapping[str, bytes]) -> tuple[EpochRow, ...]:
    """The history in `state.json`, without arrays. Raises ValueError as `RunState.from_files`."""
    with _trusting():
        return rows_of(_document(files)["history"])


def _document(files: Mapping[str, bytes]) -> dict[str, Any]:
    document = json.loads(files[STATE_FILE])
    if document["format"] != FORMAT:
        raise ValueError(f"checkpoint format {document['format']}, expected {FORMAT}")
    return document


@contextlib.contextmanager
def _trusting() -> Iterator[None]:
    try:
        yield
    except (
        *(KeyError, TypeError, UnicodeDecodeError),
        *(json.JSONDecodeError, safetensors.SafetensorError),
    ) as error:
        raise ValueError(f"not a checkpoint's files: {error!r}") from error


def sha256_of(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 over the arrays' bytes, in the order given (that of `model.weights`)."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
