"""What runs there are in a place, and how each of them stands."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from job.errors import InputError, JobError
from job.runs.folder import usable
from job.runs.run import CONFIG_FILE, Run, open_run
from job.runs.state import best_row
from job.storage.base import StoreError
from job.storage.open import open_storage
from job.waiting import waiting

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """A run in a list.

    Attributes:
        name, model, dataset: From its settings.
        state: `finished`, `training` (a process holds it), `stopped` (it can be continued) or
            `unreadable`.
        epochs: Finished epochs.
        val_accuracy, test_accuracy: Of the best weights, once they are known.
        age: Seconds since it was first started.
        size: Bytes of all its files.
        files: Sizes of the files by path.
        run: The run itself; None where not even its settings can be read.
    """

    name: str
    model: str = ""
    dataset: str = ""
    state: str
    epochs: int = 0
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    age: float = 0.0
    size: int
    files: dict[str, int] = dataclasses.field(repr=False)
    run: Run | None = None


@waiting("runs to be read")
def list_runs(place: str, only: str | None = None) -> list[Listed]:
    """The runs below a storage root, newest first.

    Args:
        place: The root.
        only: Look at the run of this name alone.

    Raises:
        InputError: The place can't be read.
    """
    root = open_storage(place)
    with usable(place):
        files = root.files()
        names = [path.removesuffix(f"/{CONFIG_FILE}") for path in files]
        runs = [
            describe(place, name, _below(files, name))
            for name in sorted(set(names) - set(files))
            if "/" not in name and only in (None, name)
        ]
    return sorted(runs, key=lambda run: run.age)


def describe(place: str, name: str, files: dict[str, int]) -> Listed:
    """How one run stands. One that can't be read is listed as such: the others still matter."""
    size = sum(files.values())
    run = None
    try:
        run = open_run(name, place)
        result = run.result()
        facts = result_facts(result) if result else checkpoint_facts(run)
        state = "finished" if result else "training" if run.storage.holder() else "stopped"
    except StoreError:
        raise
    except JobError as error:
        log.warning("%s can't be read: %s", name, error)
        return Listed(name=name, state="unreadable", size=size, files=files, run=run)
    return Listed(
        name=name,
        model=run.config.model,
        dataset=run.config.dataset,
        state=state,
        age=max(0.0, time.time() - run.created),
        size=size,
        files=files,
        run=run,
        **facts,
    )


def result_facts(result: dict[str, Any]) -> dict[str, Any]:
    """A finished run's epochs and accuracies; None for what its result lacks."""
    return {name: result.get(name) for name in ("epochs", "val_accuracy", "test_accuracy")}


def checkpoint_facts(run: Run) -> dict[str, Any]:
    """Epochs done so far, and the validation accuracy of the best one; None before the first."""
    history = run.history()
    best = best_row(history)
    return {"epochs": len(history), "val_accuracy": best and best.val_accuracy}


def orphans(runs: Sequence[Listed]) -> list[tuple[Listed, list[str]]]:
    """Checkpoint folders that crashed attempts left, by run.

    A run in training is left alone: what its index does not name yet may be under way.
    """
    found = [
        (listed, listed.run.checkpoints.orphans())
        for listed in runs
        if listed.run is not None and listed.state in ("stopped", "finished")
    ]
    return [(listed, folders) for listed, folders in found if folders]


def remove_orphans(listed: Listed) -> list[str]:
    """Removes a run's orphans while holding the run. Raises LockedError where it trains again."""
    assert listed.run is not None  # as `orphans` names no other
    with listed.run.storage.locked():
        return listed.run.checkpoints.remove_orphans()


def pin(listed: Listed, step: int, pinned: bool) -> None:
    """Keeps a checkpoint for good, or no longer. Raises InputError where there is none."""
    if listed.run is None:
        raise InputError("RUN", listed.name, "can't be read, so that nothing can be kept of it")
    checkpoints = listed.run.checkpoints
    try:
        checkpoints.pin(step, pinned)
    except KeyError:
        there = ", ".join(str(entry.step) for entry in checkpoints.entries()) or "no step"
        raise InputError("STEP", step, f"{listed.name} has checkpoints of {there}") from None


def _below(files: dict[str, int], name: str) -> dict[str, int]:
    start = f"{name}/"
    return {path.removeprefix(start): n for path, n in files.items() if path.startswith(start)}
