"""Pictures as people have them, made from digits of the test set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFilter

WHITE, BLACK = 255, 0
Save = Callable[[Path], None]


def ink(digit: np.ndarray, size: int) -> np.ndarray:
    """The strokes of a digit in a square of another size, 0 to 1."""
    scaled = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(scaled, np.float32) / 255


def on_paper(
    strokes: np.ndarray, shape: tuple[int, int], place: tuple[int, int], light: object = 1.0
) -> np.ndarray:
    """A dark digit on light paper, uint8 (height, width), under some light."""
    paper = np.full(shape, 235, np.float32)
    top, left = place
    part = paper[top : top + len(strokes), left : left + strokes.shape[1]]
    part -= strokes * 190
    return np.clip(paper * light, 0, 255).astype(np.uint8)


def picture(digit: np.ndarray, kind: str, chance: np.random.Generator) -> Image.Image:
    """A picture of one of `KINDS`."""
    return KINDS[kind](digit, chance)


def _plain(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray(on_paper(ink(digit, 280), (300, 300), (10, 10)))


def _dark(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray((ink(digit, 300) * 255).astype(np.uint8))


def _off_centre(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray(on_paper(ink(digit, 120), (260, 400), (110, 20)))


def _shadowed(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray(
        on_paper(ink(digit, 400), (600, 600), (100, 100), np.linspace(1, 0.45, 600))
    )


def _corner_in_shadow(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    rows, columns = np.mgrid[:600, :600]
    light = np.where(rows + columns > 700, 0.5, 1.0)
    soft = Image.fromarray((light * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(40))
    light = np.asarray(soft, np.float32) / 255
    return Image.fromarray(on_paper(ink(digit, 400), (600, 600), (100, 100), light))


def _photo(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    noisy = on_paper(ink(digit, 300), (480, 640), (90, 200), 0.7).astype(np.float32)
    return Image.fromarray(np.clip(noisy + chance.normal(0, 8, noisy.shape), 0, 255).astype("u1"))


def _lined(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    page = Image.fromarray(on_paper(ink(digit, 280), (400, 400), (60, 60)))
    lined = ImageDraw.Draw(page)
    for row in range(20, 400, 60):
        lined.line([(0, row), (400, row)], fill=150, width=2)
    return page


def _squared(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    page = _lined(digit, chance)
    lined = ImageDraw.Draw(page)
    for column in range(20, 400, 60):
        lined.line([(column, 0), (column, 400)], fill=150, width=2)
    return page


def _transparent(color: tuple[int, int, int]) -> Callable[..., Image.Image]:
    def make(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
        canvas = Image.new("RGBA", (200, 200), (*color, 255))
        canvas.putalpha(Image.fromarray((ink(digit, 200) * 255).astype(np.uint8)))
        return canvas

    return make


def _deep(scale: int) -> Callable[..., Image.Image]:
    def make(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
        return Image.fromarray(np.asarray(_dark(digit, chance)).astype(np.uint16) * scale)

    return make


def _palette(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return _plain(digit, chance).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)


def _plotted(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    page = np.full((480, 640), 255, np.uint8)
    page[60:420, 140:500] = (ink(digit, 360) * 255).astype(np.uint8)
    return Image.fromarray(page)


def _boxed(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    page = Image.fromarray(on_paper(ink(digit, 240), (400, 400), (80, 80)))
    ImageDraw.Draw(page).rectangle((40, 40, 360, 360), outline=30, width=6)
    return page


def _turned(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    held = _plain(digit, chance).rotate(90)
    exif = held.getexif()
    exif[ExifTags.Base.Orientation] = 6
    held.info["exif"] = exif.tobytes()
    return held


def _small(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray(on_paper(ink(digit, 20), (22, 22), (1, 1)))


def _huge(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    return Image.fromarray(on_paper(ink(digit, 1500), (2400, 3200), (500, 900)))


def _specked(digit: np.ndarray, chance: np.random.Generator) -> Image.Image:
    page = on_paper(ink(digit, 280), (400, 400), (60, 60))
    for row, column in ((15, 20), (380, 30), (25, 370), (370, 385)):
        page[row : row + 8, column : column + 8] = 60
    return Image.fromarray(page)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], Image.Image]] = {
    "dark on light": _plain,
    "light on dark": _dark,
    "off centre": _off_centre,
    "a shadow on one side": _shadowed,
    "a corner in shadow": _corner_in_shadow,
    "a grey photo with noise": _photo,
    "lined paper": _lined,
    "squared paper": _squared,
    "transparent, blue ink": _transparent((0, 0, 160)),
    "transparent, white ink": _transparent((255, 255, 255)),
    "16 bits": _deep(257),
    "16 bits with values of 12": _deep(16),
    "16 bits with values of 8": _deep(1),
    "palette": _palette,
    "from a plotting library": _plotted,
    "in a box": _boxed,
    "turned by EXIF": _turned,
    "small": _small,
    "huge": _huge,
    "with specks": _specked,
}


def save(made: Image.Image, path: Path) -> None:
    """As PNG, with the note of how it was held where there is one."""
    exif = made.info.get("exif")
    made.save(path, **({"exif": exif} if exif else {}))
