"""Predictions for a user's own pictures."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from job.errors import InputError
from job.results.drawing import border, find_drawing

log = logging.getLogger(__name__)

# MNIST's digits were scaled into 20×20 and set into 28×28 by their centre of mass (LeCun's MNIST
# page); a picture must be brought into the same form to be judged by the same model.
SIZE = 28
DIGIT_SIZE = 20
SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 50_000_000


def read_image(path: str, mode: str = "L") -> np.ndarray:
    """Reads a PNG or JPEG; what is transparent becomes white, or black under white strokes.

    Args:
        path: Of the picture.
        mode: `L` for grey values, `RGB` for colours.

    Returns:
        uint8 (height, width), or (height, width, 3).

    Raises:
        InputError: No such file, or no such picture.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError("IMAGE", path, f"has more than {MAX_PIXELS:,} pixels")
            # A camera notes how it was held instead of turning the picture.
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                # 16 bits, of which many programs use fewer: Pillow would clip them to 8.
                deep = np.asarray(upright).astype(np.uint16)
                unused = max(0, int(deep.max()).bit_length() - 8)
                upright = Image.fromarray((deep >> unused).astype(np.uint8))
            rgba = upright.convert("RGBA")
    except FileNotFoundError as error:
        raise InputError("IMAGE", path, "no such file") from error
    except (
        *(OSError, UnidentifiedImageError, SyntaxError, ValueError),
        Image.DecompressionBombError,
    ) as error:
        raise InputError("IMAGE", path, "is not a whole PNG or JPEG image") from error
    ground = Image.new("RGBA", rgba.size, _ground_of(rgba))
    return np.asarray(Image.alpha_composite(ground, rgba).convert(mode))


def _ground_of(rgba: Image.Image) -> str:
    """What to put behind a transparent picture."""
    grey, opacity = np.asarray(rgba.convert("LA"), np.float64).transpose(2, 0, 1)
    is_drawn_in_white = opacity.min() < 255 and (grey * opacity).sum() > 192 * opacity.sum()
    return "black" if is_drawn_in_white else "white"


def to_example(
    pixels: np.ndarray,
    *,
    is_digit: bool,
    inverts: bool = True,
    size: int = SIZE,
    name: str = "a picture",
) -> np.ndarray:
    """Brings a picture of any size into the form of the data set.

    Args:
        pixels: Grey uint8 (height, width), dark on light or light on dark; or colours, uint8
            (height, width, 3).
        is_digit: Crop to the drawing and centre it by mass, as MNIST was made; other pictures are
            only padded to a square and scaled.
        inverts: Make a light ground dark, as that of the published sets is. A user's own set has
            the ground that it has.
        size: Height and width of the data set's images; those of digits have 28.
        name: What to call the picture in a warning.

    Returns:
        uint8 (size, size, 1), light on dark where `inverts`, or (size, size, 3).

    Raises:
        ValueError: Nothing is drawn in the picture of a digit.
    """
    if pixels.ndim == 3:
        return _fitted(pixels, size)
    if is_digit and (pixels.shape != (size, size) or not np.ptp(pixels)):
        found = find_drawing(pixels)
        if found is None:
            raise ValueError("is empty: nothing is drawn in it")
        if found.has_others:
            log.warning("%s: there is more than one drawing; the largest is judged", name)
        return _centred_by_mass(_fitted(found.strokes, DIGIT_SIZE))[..., None]
    # What surrounds the thing is the background; the data sets have a dark one.
    if inverts and np.median(border(pixels)) > 127:
        pixels = 255 - pixels
    # In the form of the data set each pixel is left as it is.
    return (pixels.copy() if pixels.shape == (size, size) else _fitted(pixels, size))[..., None]


def _fitted(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scales a picture to fit into a square, in proportion, and fills up with black."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    scaled = np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.LANCZOS))
    square = np.zeros((size, size, *pixels.shape[2:]), np.uint8)
    top, left = (size - scaled.shape[0]) // 2, (size - scaled.shape[1]) // 2
    square[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return square


def _centred_by_mass(drawing: np.ndarray) -> np.ndarray:
    mass = drawing.astype(np.float64) + 1e-9
    positions = np.arange(len(drawing))
    row = (mass.sum(axis=1) @ positions) / mass.sum()
    column = (mass.sum(axis=0) @ positions) / mass.sum()
    # Pixel 14, counted from 0: where the data set's own digits have their centre of mass.
    middle = SIZE / 2
    room = SIZE - len(drawing)
    top = int(np.clip(round(middle - row), 0, room))
    left = int(np.clip(round(middle - column), 0, room))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    canvas[top : top + len(drawing), left : left + len(drawing)] = drawing
    return canvas


def pictures_of(places: Sequence[str]) -> list[str]:
    """Pictures, and all that are below folders, by name.

    Raises:
        InputError: There are none in a folder.
    """
    found: list[str] = []
    for place in places:
        # As a path it would raise an error for a name that is too long.
        if not os.path.isdir(place):
            found.append(place)
            continue
        below = sorted(
            str(path) for path in Path(place).rglob("*") if path.suffix.lower() in SUFFIXES
        )
        if not below:
            raise InputError("IMAGE", place, f"holds no pictures ({', '.join(SUFFIXES)})")
        found += below
    return found


def read_examples(
    paths: list[str], image_shape: tuple[int, int, int], *, is_digit: bool, inverts: bool = True
) -> np.ndarray:
    """Pictures as examples, uint8 (n, *image_shape), by the arguments of `to_example`.

    Raises InputError for the first bad one.
    """
    size, _, channels = image_shape
    mode = "RGB" if channels == 3 else "L"
    with warnings.catch_warnings():
        # `MAX_PIXELS` is the limit; Pillow's warning below it would be noise.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        how = {"is_digit": is_digit, "inverts": inverts, "size": size}
        return np.stack([_example(path, mode, how) for path in paths])


def _example(path: str, mode: str, how: dict[str, Any]) -> np.ndarray:
    try:
        return to_example(read_image(path, mode), name=path, **how)
    except ValueError as problem:
        raise InputError("IMAGE", path, str(problem)) from problem


def describe(path: str, probabilities: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """One prediction as a document: the label and every class's probability."""
    return {
        "image": path,
        "prediction": labels[int(probabilities.argmax())],
        "probabilities": {
            label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)
        },
    }
