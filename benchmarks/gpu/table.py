"""The figures of gpu.py as a Markdown table. Those that nobody has measured say so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Rate, keras_key, rate_cases

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RESULT = RESULTS / "gpu.json"
BATCHES = (32, 512, 4096)
EPOCHS = 50
# "50 epochs in 2.5 minutes", on one GPU of 2020.
NOTEBOOK_SECONDS = 150
GOAL_SECONDS = 15
NOT_MEASURED = "not_measured"
MODELS = {"lenet5": "LeNet5", "alexnet": "AlexNet"}

Figures = dict[str, Any]
Cell = Callable[[Figures], str]


def keys(batches: Sequence[int]) -> list[str]:
    """The names of all figures."""
    return [key for key, _, _, _ in rows(batches, EPOCHS)]


def rows(batches: Sequence[int], epochs: int) -> list[tuple[str, str, Cell, str]]:
    """Rows of the table: their figures' name, what they are, how shown, what the notebook has."""
    published = json.loads((RESULTS / "notebook_published.json").read_text())["lenet5"]
    run = f"LeNet5, {epochs} epochs, batch 32"
    theirs = f"{NOTEBOOK_SECONDS} s; {100 * published['test_accuracy']:.2f} %"
    return [
        ("notebook", f"{run}; goal on an H100: {GOAL_SECONDS} s of training", run_text, theirs),
        ("notebook-no-xla", "the same with `--no-xla`", run_text, ""),
        *((key, name, rate_text, "") for key, name in rates(batches)),
        ("memory", "most memory of the GPU that LeNet5 took at batch 32", memory_text, ""),
        ("sweep-shared", "two trials at a time, half a GPU each", trials_text, ""),
        ("sweep-in-turn", "two trials, one after the other", trials_text, ""),
        ("resume", "interrupted and resumed, against undisturbed", resume_text, ""),
        ("loss", "loss of the first epoch on the GPU", loss_text, ""),
        ("loss-cpu", "the same on the processors beside it", loss_text, ""),
    ]


def rates(batches: Sequence[int]) -> Iterator[tuple[str, str]]:
    """The names of rates, and what they are of: ours, with Keras' beside them."""
    for (model, batch), cases in itertools.groupby(rate_cases(batches), key=lambda case: case[:2]):
        yield from ((case.key, what(case)) for case in cases)
        if model == "lenet5":
            yield keras_key(batch), f"LeNet5, batch {batch:,}: Keras' `fit`"


def what(case: Rate) -> str:
    """A case in words: what of it is not as by default."""
    options = [f"`--precision {case.precision}`"] if case.precision != "float32" else []
    options += [] if case.is_deterministic else ["`--no-deterministic`"]
    options += ["`--no-xla`"] if case.has_xla is False else []
    return ", ".join([f"{MODELS[case.model]}, batch {case.batch:,}", *options])


def run_text(figures: Figures) -> str:
    seconds, training = figures["seconds"], figures["train_seconds"]
    accuracy = 100 * figures["test_accuracy"]
    return f"{seconds:.1f} s, of which training {training:.1f} s; {accuracy:.2f} %"


def rate_text(figures: Figures) -> str:
    middle, low, high = (figures[name] for name in ("images_per_second", "min", "max"))
    return f"{middle:,.0f} images/s ({low:,.0f}–{high:,.0f})"


def memory_text(figures: Figures) -> str:
    return f"{figures['peak_mib']:,.0f} MiB"


def trials_text(figures: Figures) -> str:
    ended = figures["states"].count("finished")
    return (
        f"{ended} finished in {figures['training']:.0f} s, whole command {figures['seconds']:.0f} s"
    )


def resume_text(figures: Figures) -> str:
    step, last = figures["interrupted"]["step"], figures["resumed"]["step"]
    same = "the same weights, to the bit" if figures["equal"] else "**other weights**"
    return f"{same} (step {step:,} of {last:,})"


def loss_text(figures: Figures) -> str:
    return f"{figures['loss']:.6f}"


def table(path: Path = RESULT) -> str:
    """The kept figures; without the file, the same rows without any."""
    if not path.exists():
        nothing = {NOT_MEASURED: ""}
        document = {
            "batches": BATCHES,
            "epochs": EPOCHS,
            "rows": dict.fromkeys(keys(BATCHES), nothing),
        }
        note = "No GPU was at hand."
    else:
        document = json.loads(path.read_text())
        note = note_of(document)
    lines = ["| what | this project | notebook |", "|---|---|---|"]
    for key, name, text, theirs in rows(document["batches"], document["epochs"]):
        beside = theirs if document["epochs"] == EPOCHS else ""
        lines.append(f"| {name} | {cell(document['rows'][key], text)} | {beside} |")
    return "\n".join([*lines, "", note])


def cell(figures: Figures, text: Cell) -> str:
    if NOT_MEASURED not in figures:
        return text(figures)
    return ": ".join(filter(None, ["not measured", figures[NOT_MEASURED]]))


def note_of(document: Figures) -> str:
    """On what it was measured.

    Where that was no GPU, or not the whole, also that these are no figures of one.
    """
    device = document["rows"]["device"]
    name = device["device"]
    if device["kind"] == "gpu":
        name += f", compute capability {device['compute_capability']}"
        name += f", driver {device['driver']}" if device["driver"] else ""
    versions = ", ".join(f"{name} {one}" for name, one in document["versions"].items() if one)
    where = f"{document['date']}, {device['kind']} ({name}); {versions}."
    if device["kind"] != "gpu":
        where = f"**Measured on a processor**: {where}"
    if document["short"]:
        where = f"Short form, which says that it works and not how fast. {where}"
    products = " float32 products in TF32." if device.get("tf32") else ""
    return f"Rates: medians of three spans (least–most). {where}{products}"
