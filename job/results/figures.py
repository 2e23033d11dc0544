"""The pictures of a run, each a function from data to PNG bytes.

Curves and tables are drawn by Matplotlib; examples, which are pixels and texts only, by Pillow with
Matplotlib's font: 784 texts take Matplotlib a second, which a run would wait for.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from job.runs.state import EpochRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Pixels of the screen for a pixel of an image, and around images.
ZOOM, ZOOM_IN_DETAIL = 7, 42
MARGIN = 8
TEXT_SIZE, TITLE_SIZE, VALUE_SIZE = 14, 25, 11
GRID = 5
WORST = 10
# Labels on an axis.
READABLE = 30
# Label names are not formulas, whatever dollars they hold.
PLAIN = {"parse_math": False}


def first_ten(images: np.ndarray, labels: Sequence[str]) -> bytes:
    """The first ten images, two rows of five, titled with their labels."""
    return _gallery([_enlarged(image, ZOOM) for image in images[:10]], labels[:10])


def in_detail(image: np.ndarray, label: str) -> bytes:
    """One image (height, width, channels) with every pixel's values printed.

    They are white on dark and black on light; of colours red, green and blue, from the top.
    """
    font = _font(VALUE_SIZE)
    enlarged = _enlarged(image, ZOOM_IN_DETAIL)
    draw = ImageDraw.Draw(enlarged)
    for row, column in np.ndindex(image.shape[:2]):
        values = image[row, column]
        center = ((column + 0.5) * ZOOM_IN_DETAIL, (row + 0.5) * ZOOM_IN_DETAIL)
        ink = "white" if values.mean() < 128 else "black"
        draw.text(center, "\n".join(map(str, values)), ink, font, "mm", spacing=0)
    return _gallery([enlarged], [label], TITLE_SIZE)


def history(rows: Sequence[EpochRow], best_epoch: int) -> bytes:
    """Accuracy and loss over the epochs, for training and validation."""
    figure = _figure(figsize=(11, 4))
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.13, top=0.92, wspace=0.15)
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
    """Counts of (true, predicted) labels.

    Colours show the mistakes, the diagonal would drown them. With more labels than can be read,
    only every so many is named, and no count is.
    """
    figure = _figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    mistakes = matrix.astype(float)
    np.fill_diagonal(mistakes, 0)
    axes.imshow(mistakes, cmap="Reds")
    threshold = mistakes.max() / 2
    for (true, predicted), count in np.ndenumerate(matrix):
        if count and len(labels) <= READABLE:
            dark = true != predicted and count > threshold
            # Within the axes, so the layout need not ask how large it is.
            text = axes.text(
                predicted, true, f"{count}", ha="center", va="center", color="w" if dark else "k"
            )
            text.set_in_layout(False)
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
        images: uint8 (n, height, width, channels).
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
    return _gallery([_enlarged(image, ZOOM) for image in images[worst]], titles)


def _enlarged(pixels: np.ndarray, zoom: int) -> Image.Image:
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _gallery(images: Sequence[Image.Image], titles: Sequence[str], size: int = TEXT_SIZE) -> bytes:
    """Images of one size in rows, each below its title."""
    lines = 1 + max(title.count("\n") for title in titles)
    line = round(1.3 * size)
    width = images[0].width + 2 * MARGIN
    height = images[0].height + lines * line + 2 * MARGIN
    rows = -(-len(images) // GRID)
    page = Image.new(images[0].mode, (width * min(GRID, len(images)), height * rows), "white")
    draw = ImageDraw.Draw(page)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        left, top = width * (i % GRID), height * (i // GRID)
        page.paste(image, (left + MARGIN, top + MARGIN + lines * line))
        for number, text in enumerate(reversed(title.split("\n"))):
            baseline = top + MARGIN + (lines - number) * line - size // 2
            draw.text((left + width / 2, baseline), text, "black", _font(size), "ms")
    stream = io.BytesIO()
    page.save(stream, format="png")
    return stream.getvalue()


def _figure(**settings: Any) -> Figure:
    # Here, because its import takes more than half a second, and a run draws curves at its end.
    from matplotlib.figure import Figure

    return Figure(**settings)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without the software entry, equal figures are equal files.
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
