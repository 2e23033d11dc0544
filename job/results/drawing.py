"""The digit in a picture: what somebody drew, without paper, shadow, lines, frame and specks.

MNIST's digits are light strokes on black and nothing else; a picture has to become that before a
model that knows nothing else can judge it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

# Strokes and paper are told apart at this size; a digit needs no more.
WORK_SIZE = 256
# Grey values between paper and stroke below which nothing is drawn.
FAINTEST = 16
# Of the darkest stroke; below it are lines of the paper, and noise.
THRESHOLD = 0.25
# Strokes are thinner than this part of the picture, shadows wider.
WIDEST_STROKE = 1 / 3
# Strokes fade out within this part of the picture: a pixel of 28.
EDGE = 1 / 28
# A line of the paper goes through this part of it.
LINE = 0.85
# Of the largest part: what is smaller is a speck, what is larger is another drawing.
SPECK, OTHER = 0.03, 0.3
# Parts of one drawing are no further apart than this share of its height.
GAP = 0.08


class Drawing(NamedTuple):
    """Strokes, uint8 (height, width), light on dark, and whether the picture has other drawings."""

    strokes: np.ndarray
    has_others: bool


def find_drawing(pixels: np.ndarray) -> Drawing | None:
    """The largest drawing in a picture.

    Args:
        pixels: Grey uint8 (height, width), dark on light or light on dark.

    Returns:
        It, cropped to its strokes; None where nothing is drawn.
    """
    ink = _without_lines(_ink(_unframed(_reduced(pixels))))
    if not (ink > THRESHOLD).any():
        return None
    mask, has_others = _largest(ink > THRESHOLD, ink)
    rows, columns = np.nonzero(mask)
    where = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    # With the soft edges of its strokes.
    edge = 1 + round(max(ink.shape) * EDGE)
    strokes = np.where(ndimage.binary_dilation(mask, iterations=edge), ink, 0)[where]
    return Drawing((strokes * (255 / strokes.max())).astype(np.uint8), has_others)


def _reduced(pixels: np.ndarray) -> np.ndarray:
    factor = max(pixels.shape) // WORK_SIZE
    if factor < 2:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def border(pixels: np.ndarray) -> np.ndarray:
    """The pixels at the edge of a picture, (n,)."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _unframed(pixels: np.ndarray) -> np.ndarray:
    """What is inside of frames, be they filled or lines: what a plotting library leaves around."""
    while True:
        differs = np.abs(pixels.astype(int) - int(np.median(border(pixels)))) > 4 * FAINTEST
        rows, columns = np.nonzero(differs)
        if not rows.size:
            return pixels
        inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
        part, ring = pixels[inside], differs[inside]
        is_frame = min(side.mean() for side in (ring[0], ring[-1], ring[:, 0], ring[:, -1])) > 0.9
        # A thick stroke may fill its corners as well, but holds nothing else.
        holds = np.ptp(part) > 4 * FAINTEST and part.size > pixels.size / 10
        if not is_frame or not holds or part.size == pixels.size:
            return pixels
        pixels = part


def _ink(pixels: np.ndarray) -> np.ndarray:
    """How much of a stroke each pixel is, float32 (height, width), 0 to 1; all 0 for none."""
    # What surrounds the drawing is the background.
    is_dark_on_light = np.median(border(pixels)) > 127
    light = (255 - pixels if is_dark_on_light else pixels).astype(np.float32)
    width = 2 * int(max(pixels.shape) * WIDEST_STROKE / 2) + 1
    # Strokes are what an opening takes away; paper and its shadows are wider and stay.
    ground = ndimage.grey_opening(light, size=(width, width))
    ground = ndimage.uniform_filter(ground, size=max(1, width // 4))
    ink = np.clip(light - ground, 0, None)
    if np.ptp(pixels) < FAINTEST or ink.max() < FAINTEST:
        return np.zeros_like(ink)
    if is_dark_on_light:
        # In a shadow the same ink takes away less light.
        ink *= 255 / np.clip(255 - ground, FAINTEST, None)
    return np.clip(ink / np.percentile(ink[ink > ink.max() / 2], 90), 0, 1)


def _without_lines(ink: np.ndarray) -> np.ndarray:
    """Takes out what goes straight from one side to the other, and closes the gaps in strokes."""
    for axis in (0, 1):
        across = ink if axis == 0 else ink.T
        rows = (across > THRESHOLD).mean(axis=1) > LINE
        if rows.any() and not rows.all():
            thickness = int(max(np.diff(np.flatnonzero(np.diff(np.r_[0, rows, 0])))[::2]))
            bare = np.where(rows[:, None], 0, across)
            closed = ndimage.grey_closing(bare, size=(2 * thickness + 1, 1))
            across = np.where(rows[:, None], closed, across)
        ink = across if axis == 0 else across.T
    return ink


def _largest(drawn: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, bool]:
    """The largest drawing, bool (height, width), and whether there are others of its kind."""
    parts, count = ndimage.label(drawn, structure=np.ones((3, 3)))
    masses = ndimage.sum_labels(ink, parts, np.arange(1, count + 1))
    places = ndimage.find_objects(parts)
    largest = int(masses.argmax())
    reach = GAP * (places[largest][0].stop - places[largest][0].start)
    kept, others = np.zeros(count + 1, bool), False
    for index, place in enumerate(places):
        is_near = all(
            here.start <= mine.stop + reach and mine.start <= here.stop + reach
            for here, mine in zip(place, places[largest], strict=True)
        )
        if is_near and masses[index] > SPECK * masses[largest]:
            kept[index + 1] = True
        else:
            others |= bool(masses[index] > OTHER * masses[largest])
    return kept[parts], others
