"""Predictions for a user's own pictures."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from job.errors import InputError

# MNIST's digits were scaled into 20×20 and set into 28×28 by their centre of mass (LeCun's MNIST
# page); a picture must be brought into the same form to be judged by the same model.
SIZE = 28
DIGIT_SIZE = 20
MAX_PIXELS = 50_000_000


def read_image(path: str, mode: str = "L") -> np.ndarray:
    """Reads a PNG or JPEG; transparency becomes white.

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
                # 16 bits: Pillow would clip them to 8.
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            rgba = upright.convert("RGBA")
    except FileNotFoundError as error:
        raise InputError("IMAGE", path, "no such file") from error
    except (
        *(OSError, UnidentifiedImageError, SyntaxError, ValueError),
        Image.DecompressionBombError,
    ) as error:
        raise InputError("IMAGE", path, "is not a whole PNG or JPEG image") from error
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert(mode))


def to_example(pixels: np.ndarray, *, is_digit: bool, size: int = SIZE) -> np.ndarray:
    """Brings a picture of any size into the form of the data set.

    Args:
        pixels: Grey uint8 (height, width), dark on light or light on dark; or colours, uint8
            (height, width, 3).
        is_digit: Crop to the drawing and centre it by mass, as MNIST was made; other pictures are
            only padded to a square and scaled.
        size: Height and width of the data set's images; those of digits have 28.

    Returns:
        uint8 (size, size, 1), light on dark, or (size, size, 3).
    """
    if pixels.ndim == 3:
        return _fitted(pixels, size)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    # What surrounds the drawing is the background; the data sets have a dark one.
    if np.median(border) > 127:
        pixels = 255 - pixels
    if pixels.shape == (size, size):
        # Already in the form of the data set: leave each pixel as it is.
        return pixels[..., None].copy()
    if not is_digit:
        return _fitted(pixels, size)[..., None]
    low, high = int(pixels.min()), int(pixels.max())
    if high - low < 16:
        # An empty picture; there is nothing to crop to.
        return np.zeros((SIZE, SIZE, 1), np.uint8)
    stretched = ((pixels.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    rows, columns = np.nonzero(stretched > 64)
    drawing = stretched[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return _centred_by_mass(_fitted(drawing, DIGIT_SIZE))[..., None]


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


def read_examples(
    paths: list[str], image_shape: tuple[int, int, int], *, is_digit: bool
) -> np.ndarray:
    """Pictures as examples, uint8 (n, *image_shape); raises InputError for the first bad one."""
    size, _, channels = image_shape
    mode = "RGB" if channels == 3 else "L"
    with warnings.catch_warnings():
        # `MAX_PIXELS` is the limit; Pillow's warning below it would be noise.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return np.stack(
            [to_example(read_image(path, mode), is_digit=is_digit, size=size) for path in paths]
        )


def describe(path: str, probabilities: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """One prediction as a document: the label and every class's probability."""
    return {
        "image": path,
        "prediction": labels[int(probabilities.argmax())],
        "probabilities": {
            label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)
        },
    }
