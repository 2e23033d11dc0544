"""The pictures of a run, each a function from data to PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from job.state import EpochRow

GRID = 5
WORST = 10
# Labels on an axis.
READABLE = 30
# Label names are not formulas, whatever dollars they hold.
PLAIN = {"parse_math": False}


def first_ten(images: np.ndarray, labels: Sequence[str]) -> bytes:
    """The first ten images, two rows of five, titled with their labels."""
    return _gallery(images[:10], list(labels[:10]))


def in_detail(image: np.ndarray, label: str) -> bytes:
    """One image (28, 28, 1) with every pixel's value printed, white on dark and black on light."""
    pixels = image[..., 0]
    figure = Figure(figsize=(12, 12), layout="constrained")
    axes = figure.subplots()
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for (row, column), value in np.ndenumerate(pixels):
        axes.text(
            column,
            row,
            str(value),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value < 128 else "black",
        )
    axes.set_title(label, fontsize=18, **PLAIN)
    axes.set_axis_off()
    return _png(figure)


def history(rows: Sequence[EpochRow], best_epoch: int) -> bytes:
    """Accuracy and loss over the epochs, for training and validation."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    epochs = [row.epoch for row in rows]
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for field, label in ((name, "training"), (f"val_{name}", "validation")):
            axes.plot(epochs, [getattr(row, field) for row in rows], marker=".", label=label)
        axes.axvline(best_epoch, color="gray", linestyle=":", label=f"best (epoch {best_epoch})")
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> bytes:
    """Counts of (true, predicted) labels. Colours show the mistakes, the diagonal would drown
    them. With more labels than can be read, only every so many is named, and no count is."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    mistakes = matrix.astype(float)
    np.fill_diagonal(mistakes, 0)
    axes.imshow(mistakes, cmap="Reds")
    threshold = mistakes.max() / 2
    for (true, predicted), count in np.ndenumerate(matrix):
        if count and len(labels) <= READABLE:
            dark = true != predicted and count > threshold
            axes.text(
                predicted, true, f"{count}", ha="center", va="center", color="w" if dark else "k"
            )
    ticks = range(0, len(labels), -(-len(labels) // READABLE))
    names = [labels[tick] for tick in ticks]
    axes.set_xticks(ticks, names, rotation=45 if max(map(len, names)) > 2 else 0, **PLAIN)
    axes.set_yticks(ticks, names, **PLAIN)
    axes.set(xlabel="predicted", ylabel="true", title="Test set: who is taken for whom")
    return _png(figure)


def worst_mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> bytes | None:
    """The ten wrong predictions of which the model was surest; None where there is none.

    Args:
        images: uint8 (n, 28, 28, 1).
        labels: True labels (n,).
        probabilities: Predictions (n, classes).
        names: Class names.
    """
    predicted = probabilities.argmax(axis=1)
    sureness = np.where(predicted == labels, -1.0, probabilities.max(axis=1))
    worst = [i for i in np.argsort(-sureness, kind="stable")[:WORST] if sureness[i] >= 0]
    if not worst:
        return None
    titles = [
        f"{names[labels[i]]} taken for\n{names[predicted[i]]} ({sureness[i]:.1%})" for i in worst
    ]
    return _gallery(images[worst], titles)


def _gallery(images: np.ndarray, titles: Sequence[str]) -> bytes:
    rows = -(-len(images) // GRID)
    figure = Figure(figsize=(2 * GRID, 2.3 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, GRID, squeeze=False)).flat:
        axes.set_axis_off()
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=10, **PLAIN)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without the software entry, equal figures are equal files.
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
