"""The figures of benchmarks/gpu.py as a Markdown table. Those that nobody has measured say so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpu_parts import rate_key

from job.config import PRECISIONS

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RESULT = RESULTS / "gpu.json"
BATCHES = (32, 512, 4096)
EPOCHS = 50
# "50 epochs in 2.5 minutes", on one GPU of 2020.
NOTEBOOK_SECONDS = 150
NOT_MEASURED = "not_measured"

Figures = dict[str, Any]
Cell = Callable[[Figures], str]


def keys(batches: Sequence[int]) -> list[str]:
    """The names of all figures."""
    return list(dict.fromkeys(key for key, _, _, _ in rows(batches, EPOCHS)))


def rows(batches: Sequence[int], epochs: int) -> list[tuple[str, str, Cell, str]]:
    """Rows of the table: the name of the figures, what they are, how they are shown, and what the
    notebook has there."""
    published = json.loads((RESULTS / "notebook_published.json").read_text())["lenet5"]
    run = f"LeNet5, {epochs} epochs, batch 32"
    return [
        ("notebook", f"{run}: whole command", seconds_text, f"{NOTEBOOK_SECONDS} s"),
        ("notebook", f"{run}: training alone", lambda f: f"{f['train_seconds']:.0f} s", ""),
        (
            "notebook",
            f"{run}: test accuracy",
            lambda f: f"{100 * f['test_accuracy']:.2f} %",
            f"{100 * published['test_accuracy']:.2f} %",
        ),
        *(
            (
                rate_key(precision, batch, jit),
                f"batch {batch:,}, {precision}{', XLA' if jit else ''}",
                rate_text,
                "",
            )
            for batch, precision, jit in itertools.product(batches, PRECISIONS, (False, True))
        ),
        ("memory", "GPU memory in use while batch 32 trains", memory_text, ""),
        ("sweep-shared", "two trials at a time, half a GPU each", trials_text, ""),
        ("sweep-in-turn", "two trials, one after the other", trials_text, ""),
        ("resume", "interrupted and resumed, against undisturbed", resume_text, ""),
        ("loss", "loss of the first epoch on the GPU", loss_text, ""),
        ("loss-cpu", "the same on the processors beside it", loss_text, ""),
    ]


def seconds_text(figures: Figures) -> str:
    return f"{figures['seconds']:.0f} s"


def rate_text(figures: Figures) -> str:
    middle, low, high = (figures[name] for name in ("images_per_second", "min", "max"))
    return f"{middle:,.0f} images/s ({low:,.0f}–{high:,.0f})"


def memory_text(figures: Figures) -> str:
    return f"{figures['used_mib']:,} of {figures['total_mib']:,} MiB"


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
    for key, what, text, theirs in rows(document["batches"], document["epochs"]):
        beside = theirs if document["epochs"] == EPOCHS else ""
        lines.append(f"| {what} | {cell(document['rows'][key], text)} | {beside} |")
    return "\n".join([*lines, "", note])


def cell(figures: Figures, text: Cell) -> str:
    if NOT_MEASURED not in figures:
        return text(figures)
    return ": ".join(filter(None, ["not measured", figures[NOT_MEASURED]]))


def note_of(document: Figures) -> str:
    """On what it was measured; and, where that was no GPU, or not the whole, that these are no
    figures of one."""
    device = document["rows"]["device"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    where = f"{document['date']}, {device['kind']} ({device['device']}); {versions}."
    if device["kind"] != "gpu":
        where = f"**Measured on a processor**: {where}"
    if document["short"]:
        where = f"Short form, which says that it works and not how fast. {where}"
    products = (
        " float32 products in TF32."
        if device["tensor_float_32"] and device["kind"] == "gpu"
        else ""
    )
    return f"Rates: medians of three spans (least–most). {where}{products}"
