"""Predictions for a user's own pictures."""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from job.data.files import ImageShape
from job.data.foreign.rows import decoded
from job.data.foreign.tables import bytes_of, image_column, pictures_of_csv, table_of_parquet
from job.data.readers.parquet import pixels_of
from job.errors import InputError
from job.reasons import text_of
from job.results.drawing import border, find_drawing

log = logging.getLogger(__name__)

# MNIST's digits were scaled into 20×20 and set into 28×28 by their centre of mass (LeCun's MNIST
# page); a picture must be brought into the same form to be judged by the same model.
SIZE = 28
DIGIT_SIZE = 20
SUFFIXES = (".png", ".jpg", ".jpeg")
TABLES = (".csv", ".parquet")
MAX_PIXELS = 50_000_000


def pixels_in(content: bytes, mode: str = "L") -> np.ndarray:
    """Reads a PNG or JPEG; what is transparent becomes white, or black under white strokes.

    Args:
        content: Of the file.
        mode: `L` for grey values, `RGB` for colours.

    Returns:
        uint8 (height, width), or (height, width, 3).

    Raises:
        ValueError: It is no such picture.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            size = image.width * image.height
            if size <= MAX_PIXELS:
                # A camera notes how it was held instead of turning the picture.
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):
                    # 16 bits, of which many programs use fewer: Pillow would clip them to 8.
                    deep = np.asarray(upright).astype(np.uint16)
                    unused = max(0, int(deep.max()).bit_length() - 8)
                    upright = Image.fromarray((deep >> unused).astype(np.uint8))
                rgba = upright.convert("RGBA")
    except (
        *(OSError, UnidentifiedImageError, SyntaxError, ValueError),
        Image.DecompressionBombError,
    ) as error:
        raise ValueError("is not a whole PNG or JPEG image") from error
    if size > MAX_PIXELS:
        raise ValueError(f"has more than {MAX_PIXELS:,} pixels")
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
    size: int = SIZE,
    name: str = "a picture",
) -> np.ndarray:
    """Brings a picture of any size into the form of a published data set.

    Args:
        pixels: Grey uint8 (height, width), dark on light or light on dark; or colours, uint8
            (height, width, 3).
        is_digit: Crop to the drawing and centre it by mass, as MNIST was made; other pictures are
            only padded to a square and scaled.
        size: Height and width of the data set's images; those of digits have 28.
        name: What to call the picture in a warning.

    Returns:
        uint8 (size, size, 1), light on dark, or (size, size, 3).

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
    if np.median(border(pixels)) > 127:
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


class Source(NamedTuple):
    """Where an example is from: a file, and of a table the row, from 0."""

    path: str
    row: int | None = None

    def __str__(self) -> str:
        return self.path if self.row is None else f"{self.path}, row {self.row}"


class Form(NamedTuple):
    """What pictures are brought to, as those were that a model has learnt from.

    Attributes:
        image_shape: Height, width and channels.
        is_digit: As for `to_example`.
        is_own: Whether the data set is a user's own, whose pictures are what they are: only their
            size changes, as when the set was made.
    """

    image_shape: ImageShape
    is_digit: bool
    is_own: bool = False


class Inputs(NamedTuple):
    """Examples: where each is from, and `images` uint8 (n, height, width, channels)."""

    sources: list[Source]
    images: np.ndarray


def read_examples(places: Sequence[str], form: Form) -> Inputs:
    """Reads what a model is asked about.

    Args:
        places: Pictures, folders of them, CSV of pixels, or Parquet with a column `image`.
        form: What the model takes.

    Raises:
        InputError: One can't be used, the first of them; or a folder holds no picture.
    """
    found: list[tuple[Source, np.ndarray]] = []
    with warnings.catch_warnings():
        # `MAX_PIXELS` is the limit; Pillow's warning below it would be noise.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for path in _files_of(places):
            try:
                found += _read(path, form)
            except ValueError as problem:
                raise InputError("INPUT", path, str(problem)) from problem
    if not found:
        raise InputError("INPUT", places[0], "holds no rows")
    return Inputs([source for source, _ in found], np.stack([image for _, image in found]))


def _files_of(places: Sequence[str]) -> Iterator[str]:
    """Files, and of folders all pictures that are below, by name."""
    for place in places:
        # As a path it would raise an error for a name that is too long.
        if not os.path.isdir(place):
            yield place
            continue
        below = [path for path in Path(place).rglob("*") if path.suffix.lower() in SUFFIXES]
        if not below:
            raise InputError("INPUT", place, f"holds no pictures ({', '.join(SUFFIXES)})")
        yield from sorted(map(str, below))


def _read(path: str, form: Form) -> Iterator[tuple[Source, np.ndarray]]:
    content = _content(path)
    if not path.lower().endswith(TABLES):
        yield Source(path), _picture(content, form, path)
        return
    of_table = _rows_of_csv if path.lower().endswith(".csv") else _rows_of_parquet
    for row, cell in enumerate(of_table(path, content, form)):
        source = Source(path, row)
        if isinstance(cell, np.ndarray) and cell.shape == form.image_shape:
            # In the form of the data set each pixel is left as it is.
            yield source, cell
            continue
        try:
            yield source, _picture(_file_of(cell), form, str(source))
        except ValueError as problem:
            raise ValueError(f"row {row} {problem}") from problem


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError("INPUT", path, "no such file") from error
    except OSError as error:
        raise InputError("INPUT", path, f"can't be read ({text_of(error)})") from error


def _picture(content: bytes, form: Form, name: str) -> np.ndarray:
    height, width, channels = form.image_shape
    if form.is_own:
        return decoded(content, (height, width), channels)
    pixels = pixels_in(content, "RGB" if channels == 3 else "L")
    return to_example(pixels, is_digit=form.is_digit, size=height, name=name)


def _rows_of_csv(path: str, content: bytes, form: Form) -> Iterable[np.ndarray]:
    return pictures_of_csv(path, content, form.image_shape[:2])


def _rows_of_parquet(path: str, content: bytes, form: Form) -> Iterable[Any]:
    table = table_of_parquet(path, content)
    column = image_column(table)
    if column is None:
        raise ValueError(f"has columns {', '.join(table.column_names)}; image is needed")
    size = math.prod(form.image_shape)
    if str(table.schema.field(column).type) == f"fixed_size_binary[{size}]":
        return pixels_of(table.column(column), size).reshape(-1, *form.image_shape)
    return table.column(column).to_pylist()


def _file_of(cell: Any) -> bytes:
    """A cell of a table as a file with a picture."""
    if not isinstance(cell, np.ndarray):
        return bytes_of(cell)
    stream = io.BytesIO()
    Image.fromarray(cell[..., 0]).save(stream, "PNG")
    return stream.getvalue()


def describe(source: Source, probabilities: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    """One prediction as a document: the label and every class's probability."""
    return {
        "image": str(source),
        "prediction": labels[int(probabilities.argmax())],
        "probabilities": {
            label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)
        },
    }
