"""LeNet5 on one GPU: how fast, how much memory, how it is shared, and whether it computes right.

    python -m benchmarks.gpu.gpu                        # measures, keeps docs/results/gpu.json
    python -m benchmarks.gpu.gpu --table                # prints the table of the kept figures
    python -m benchmarks.gpu.gpu --short --out FILE     # a few steps, also without a GPU

benchmarks/gpu/gpu.sh starts it where there is no network. The time is divided among the parts; what
one leaves over goes to those after it, and what does not fit is said to be not measured. Figures
are written after each part, so that a machine which is taken away has left something.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Found, Task, keras_key, rate_cases
from benchmarks.gpu.table import BATCHES, EPOCHS, NOT_MEASURED, RESULT, table
from benchmarks.kit.in_time import MeasuringError, OutOfTimeError, lines
from benchmarks.kit.paired import circumstances
from job.engine import accelerator
from job.storage.open import open_storage
from tuning.records import read_sweep

CHILD = ("-m", "benchmarks.gpu.parts")
LENET = ("-m", "tuning.cli")
SECONDS = 470.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: see `Task`; epochs of the notebook's run and a sweep's two trials."""

    task: Task
    epochs: int
    sweep_epochs: int
    is_short: bool = False


FULL = Size(
    task=Task(rows=None, batches=BATCHES, seconds=0.6, model="lenet5", resume_rows=12_800),
    epochs=EPOCHS,
    sweep_epochs=20,
)
SHORT = Size(
    task=Task(rows=1024, batches=(8,), seconds=0.05, model="ffnn", resume_rows=8_192),
    epochs=1,
    sweep_epochs=1,
    is_short=True,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One of the measurements.

    Attributes:
        measure: Measures, until a moment of `time.monotonic`.
        keys: The figures that it gives, by name, of a list of batch sizes.
        seconds: Its share of the time, as seconds of a full run.
    """

    measure: Callable[[Size, float], Found]
    keys: Callable[[Sequence[int]], Sequence[str]]
    seconds: float


def child(name: str, task: Task, until: float) -> Found:
    """The figures of a part of parts.py."""
    settings = json.dumps(dataclasses.asdict(task))
    for line in lines([*CHILD, name, settings], until):
        found = json.loads(line)
        yield found["key"], found["figures"]


def in_child(name: str) -> Callable[[Size, float], Found]:
    """What measures a part that is a part of parts.py as well."""
    return lambda size, until: child(name, size.task, until)


def resume(size: Size, until: float) -> Found:
    """A run that was interrupted and went on in another process, against one that was not."""
    found = {**dict(child("begin", size.task, until)), **dict(child("resume", size.task, until))}
    weights = [found[name]["weights_sha256"] for name in ("undisturbed", "resumed")]
    yield "resume", {**found, "equal": weights[0] == weights[1]}


def notebook(name: str, chosen: Sequence[str], size: Size, until: float) -> Found:
    """The notebook's run, as a user starts it, with the flags chosen."""
    task = size.task
    flags = ["--recipe", "notebook", "--epochs", size.epochs, *chosen, *common(task)]
    began = time.monotonic()
    try:
        (line,) = lines([*LENET, "train", "--name", name, *flags, "--json"], until)
    except OutOfTimeError as late:
        history = Path(task.folder, name, "history.csv")
        done = len(history.read_text().splitlines()) - 1 if history.exists() else 0
        seconds = time.monotonic() - began
        raise OutOfTimeError(
            f"{late} after {done} of {size.epochs} epochs, {seconds:.0f} s"
        ) from None
    result = json.loads(line)
    kept = ("test_accuracy", "train_seconds", "epochs", "device", "weights_sha256")
    yield name, {"seconds": time.monotonic() - began, **{key: result[key] for key in kept}}


def shared(size: Size, until: float) -> Found:
    yield "sweep-shared", two_trials("shared", size, until, slots=2)


def in_turn(size: Size, until: float) -> Found:
    yield "sweep-in-turn", two_trials("in-turn", size, until, slots=1)


def two_trials(name: str, size: Size, until: float, *, slots: int) -> dict[str, Any]:
    """A sweep of two trials, of which so many train at a time."""
    if importlib.util.find_spec("ray") is None:
        raise MeasuringError("Ray is not installed")
    space = Path(size.task.folder, f"{name}.toml")
    space.write_text("[learning_rate]\nvalues = [0.02, 0.05]\n")
    if accelerator.has_device():
        per_trial = ["--gpus-per-trial", 1 / slots]
    else:
        per_trial = ["--cpus-per-trial", max(1, os.cpu_count() // slots)]
    flags = ["--search", "grid", "--space", space, "--scheduler", "fifo", "--name", name]
    flags += ["--model", size.task.model, "--max-epochs", size.sweep_epochs]
    flags += ["--optimizer", "momentum", "--batch-size", 128, "--address", "local"]
    began = time.monotonic()
    for _ in lines([*LENET, "sweep", *flags, *per_trial, *common(size.task), "--json"], until):
        pass
    seconds = time.monotonic() - began
    trials = read_sweep(open_storage(size.task.folder).at(name)).trials
    found = [trial.outcome for trial in trials]
    begun = [one for one in found if one.started]
    first = min(one.started for one in begun)
    return {
        "seconds": seconds,
        "training": max(one.started + one.seconds for one in begun) - first,
        "states": [one.state for one in found],
        "val_accuracy": [one.best and one.best.val_accuracy for one in found],
        "device": found[0].device,
    }


def common(task: Task) -> list[object]:
    """Flags of every command."""
    place = ["--data", task.data] if task.data else []
    rows = ["--limit-train", task.rows] if task.rows else []
    return [*place, *rows, "--storage", task.folder]


def of_rates(*, is_deterministic: bool) -> Callable[[Sequence[int]], list[str]]:
    """The names of rates, of a list of batch sizes."""
    return lambda batches: [
        case.key for case in rate_cases(batches) if case.is_deterministic == is_deterministic
    ]


# What matters most comes first, should there be no time for all.
PARTS = {
    # On some cards the driver compiles TensorFlow's kernels first.
    "engine": Part(
        measure=in_child("engine"), keys=lambda _: ["device", "loss", "memory"], seconds=60
    ),
    "notebook": Part(
        measure=functools.partial(notebook, "notebook", ()),
        keys=lambda _: ["notebook"],
        seconds=40,
    ),
    "rates": Part(measure=in_child("rates"), keys=of_rates(is_deterministic=True), seconds=85),
    "any-order": Part(
        measure=in_child("any-order"), keys=of_rates(is_deterministic=False), seconds=25
    ),
    "resume": Part(measure=resume, keys=lambda _: ["resume"], seconds=25),
    "keras": Part(
        measure=in_child("keras"), keys=lambda batches: list(map(keras_key, batches)), seconds=25
    ),
    "loss": Part(measure=in_child("loss"), keys=lambda _: ["loss-cpu"], seconds=20),
    "shared": Part(measure=shared, keys=lambda _: ["sweep-shared"], seconds=45),
    "notebook-no-xla": Part(
        measure=functools.partial(notebook, "notebook-no-xla", ("--no-xla",)),
        keys=lambda _: ["notebook-no-xla"],
        seconds=110,
    ),
    "in-turn": Part(measure=in_turn, keys=lambda _: ["sweep-in-turn"], seconds=45),
}


def measure(
    size: Size, seconds: float, parts: Sequence[str], write: Callable[[dict[str, Any]], None]
) -> None:
    """Measures the parts of these names, and always the first, which says on what is measured.

    All figures so far go to `write` whenever a part has ended.

    Raises:
        MeasuringError: The first part did not come to that, or found no GPU for the full size.
    """
    batches = size.task.batches
    skipped = {NOT_MEASURED: "not asked for"}
    document = {
        **circumstances("tensorflow", "keras", "ray"),
        "short": size.is_short,
        "batches": batches,
        "epochs": size.epochs,
        "rows": {key: skipped for part in PARTS.values() for key in part.keys(batches)},
    }
    end = time.monotonic() + seconds
    chosen = [part for name, part in PARTS.items() if name == "engine" or name in parts]
    for i, part in enumerate(chosen):
        now = time.monotonic()
        share = part.seconds / sum(other.seconds for other in chosen[i:])
        document["rows"] |= figures_of(part, size, now + max(0.0, end - now) * share)
        check_device(document)
        write(document)


def check_device(document: dict[str, Any]) -> None:
    """Raises MeasuringError where nobody knows on what is measured, or where it should be a GPU."""
    device = document["rows"]["device"]
    if NOT_MEASURED in device:
        raise MeasuringError(
            f"what there is to measure on could not be told: {device[NOT_MEASURED]}"
        )
    if device["kind"] != "gpu" and not document["short"]:
        raise MeasuringError(
            "TensorFlow sees no GPU; install requirements-gpu.lock, or say --short"
        )


def figures_of(part: Part, size: Size, until: float) -> dict[str, Any]:
    """What a part found, and for the rest why there is nothing."""
    names = part.keys(size.task.batches)
    # A part that leaves a figure out without a word has no GPU to take it from.
    found, why = {}, "no GPU"
    try:
        for key, figures in part.measure(size, until):
            print(f"{key}: {json.dumps(figures)}", file=sys.stderr, flush=True)
            found[key] = figures
    except (OutOfTimeError, MeasuringError) as reason:
        why = str(reason)
        left = [key for key in names if key not in found]
        print(f"{', '.join(left)}: {why}", file=sys.stderr, flush=True)
    return {key: found.get(key, {NOT_MEASURED: why}) for key in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--short", action="store_true", help="a few steps, also without a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", help="where MNIST is, as for lenet train")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything together")
    parser.add_argument("--out", type=Path, help="docs/results/gpu.json; --short needs another")
    given = parser.parse_args()
    out = given.out or RESULT
    if given.short and out.resolve() == RESULT:
        parser.error("--short: name a file with --out, its figures are not those of a GPU")
    if not given.table:
        with tempfile.TemporaryDirectory() as folder:
            size = SHORT if given.short else FULL
            task = dataclasses.replace(size.task, data=given.data, folder=folder)
            size = dataclasses.replace(size, task=task)
            try:
                measure(size, given.seconds, given.parts, lambda found: keep(out, found))
            except MeasuringError as reason:
                sys.exit(f"gpu.py: {reason}")
    print(table(out))


def keep(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
