"""Tables of a page that can be sorted and filtered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What a table has in one place.

    Attributes:
        text: What is shown.
        sort: What it is sorted by; None comes last in either direction.
    """

    text: str
    sort: str | float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: its title, how it is aligned, and a cell for each row."""

    label: str
    is_number: bool
    cells: tuple[Cell, ...]


def numbers(label: str, pairs: Sequence[tuple[str, float | None]]) -> Column:
    """A column of numbers, each with how it is shown."""
    return Column(label=label, is_number=True, cells=tuple(Cell(text=t, sort=v) for t, v in pairs))


def texts(label: str, values: Sequence[str]) -> Column:
    """A column of words, sorted by what is shown."""
    cells = tuple(Cell(text=value, sort=value) for value in values)
    return Column(label=label, is_number=False, cells=cells)
