"""The figures of README and docs/, each a function from kept data to PNG bytes.

`python -m docs.make.pages` writes them.
"""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from benchmarks.accuracy import notebook_story, studies
from benchmarks.scaling import model as scaling_model
from benchmarks.scaling import paper as scaling_paper
from benchmarks.scaling import tables as scaling_tables
from job.results import figures
from job.runs.state import EpochRow

THEIRS, OURS, RIGHT = "black", "tab:red", "tab:blue"


def history() -> bytes:
    """Accuracy and loss of the first LeNet5 run with the notebook's settings."""
    run = next(r for r in studies.document("notebook")["runs"] if r["setting"] == "lenet5")
    curves = studies.histories("notebook", "lenet5")[run["seed"]]
    rows = [
        EpochRow(
            epoch=epoch,
            seconds=0,
            images_per_second=0,
            **dict(zip(curves, values, strict=True)),
        )
        for epoch, values in enumerate(zip(*curves.values(), strict=True), start=1)
    ]
    return figures.history(rows, run["best_epoch"])


def failing_ffnn() -> bytes:
    """Accuracy over the epochs; and loss against accuracy, where the broken runs lie on a line."""
    theirs = notebook_story.published()["ffnn"]
    broken = [run["history"] for run in notebook_story.group("raw-keras2")]
    right = list(studies.histories("notebook", "ffnn").values())
    figure = Figure(figsize=(11, 4), layout="constrained")
    over_time, against = figure.subplots(1, 2)
    for curves, color, label in (
        ([theirs], THEIRS, "the notebook"),
        (broken, OURS, "pixels 0 … 255, as in Keras 2"),
        (right, RIGHT, "pixels 0 … 1 (--recipe notebook)"),
    ):
        for number, curve in enumerate(curves):
            epochs = range(1, len(curve["val_accuracy"]) + 1)
            shown = label if number == 0 else None
            over_time.plot(epochs, curve["val_accuracy"], ".-", color=color, label=shown)
            for part in ("", "val_"):
                against.plot(
                    curve[f"{part}accuracy"],
                    curve[f"{part}loss"],
                    ".",
                    color=color,
                    label=shown if not part else None,
                )
    highest = -math.log(notebook_story.EPSILON)
    against.plot([0, 1], [highest, 0], ":", color="gray", label=f"(1 − accuracy) × {highest:.1f}")
    over_time.set(xlabel="epoch", title="validation accuracy of the FFNN", ylim=(0, 1))
    over_time.xaxis.get_major_locator().set_params(integer=True)
    against.set(xlabel="accuracy", ylabel="loss", title="each epoch, training and validation")
    for axes in (over_time, against):
        axes.grid(alpha=0.3)
        axes.legend()
    return figures._png(figure)


def leaked_validation() -> bytes:
    """Validation accuracy over the epochs where the model has seen the rows, and where not."""
    theirs = notebook_story.published()["lenet5"]
    leaked = [run["history"] for run in notebook_story.group("again")]
    right = list(studies.histories("notebook", "lenet5").values())
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    for curves, color, label in (
        ([theirs], THEIRS, "the notebook"),
        (leaked, OURS, "rows seen before"),
        (right, RIGHT, "rows never seen (--recipe notebook)"),
    ):
        for number, curve in enumerate(curves):
            epochs = range(1, len(curve["val_accuracy"]) + 1)
            axes.plot(
                epochs,
                curve["val_accuracy"],
                ".-",
                color=color,
                label=label if number == 0 else None,
            )
    axes.axhline(
        theirs["test_accuracy"], color=THEIRS, linestyle=":", label="the notebook's test accuracy"
    )
    axes.set(xlabel="epoch", title="validation accuracy of LeNet5", ylim=(0.94, 1.001))
    axes.grid(alpha=0.3)
    axes.legend()
    return figures._png(figure)


def scaling() -> bytes:
    """Predicted against measured steps; and how strong scaling ends."""
    kept = scaling_tables.document()
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    checked, ahead = figure.subplots(1, 2)
    parts = scaling_model.divided(scaling_model.observed(kept["points"]))
    for points, color, label in zip(parts, (THEIRS, OURS), ("fitted", "held out"), strict=True):
        steps = [scaling_model.predict(setting, kept["coefficients"]) for setting, _ in points]
        measured = [seconds for _, seconds in points]
        checked.plot(measured, steps, ".", color=color, label=label)
    ends = [min(seconds for part in parts for _, seconds in part), checked.get_xlim()[1]]
    checked.plot(ends, ends, ":", color="gray")
    checked.set(
        xscale="log", yscale="log", xlabel="measured, s", ylabel="predicted, s", title="a step"
    )
    batch = scaling_tables.STRONG_BATCHES[1]
    counts = [2**power for power in range(11)]
    for machines in scaling_tables.scenarios(kept["coefficients"]):
        speedups = [
            scaling_paper.strong(machines, scaling_tables.MODEL, count, batch).speedup
            for count in counts
        ]
        ahead.plot(counts, speedups, ".-", label=machines.name)
    ahead.plot(counts, counts, ":", color="gray")
    ahead.set(
        xscale="log",
        yscale="log",
        xlabel="workers",
        ylim=(0.05, counts[-1]),
        title=f"speed-up of LeNet5 at batch {batch:,}",
    )
    for axes in (checked, ahead):
        axes.grid(alpha=0.3)
        axes.legend()
    return figures._png(figure)


FIGURES = {
    "scaling.png": scaling,
    "history.png": history,
    "notebook-ffnn.png": failing_ffnn,
    "notebook-leak.png": leaked_validation,
}
