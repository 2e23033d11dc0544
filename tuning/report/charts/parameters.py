"""The searched settings as the axes of pictures and tables, read off the trials themselves.

A space may hold anything, parameters that only some trials have included, so nothing here knows
their names except for the order in which they are preferred as axes.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

# What a trial without the parameter has.
ABSENT = None
# A number with so many different values at most is a list of choices; whole numbers, such as batch
# sizes, may have more.
FEW = 5
FEW_WHOLE = 12
# Values so far apart are compared by their ratio.
WIDE = 20.0
BINS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One searched setting.

    Attributes:
        name: Its field.
        values: What each trial has, `ABSENT` where it has none; in the order of the trials.
        of_range: The values are places within a range, from 0 to 1.
    """

    name: str
    values: tuple[Any, ...]
    of_range: bool = False

    @property
    def present(self) -> list[Any]:
        """The values of the trials that have it."""
        return [value for value in self.values if value is not ABSENT]

    @property
    def is_number(self) -> bool:
        """Whether all that it has are finite numbers."""
        return all(is_number(value) for value in self.present)

    @property
    def is_log(self) -> bool:
        """Whether its values are spread over orders of magnitude."""
        if not self.is_number or not self.present or min(self.present) <= 0:
            return False
        return max(self.present) / min(self.present) >= WIDE

    @property
    def levels(self) -> list[Any]:
        """Its values in order, without those that are equal to four figures."""
        distinct = {plain(value): value for value in self.present}
        key = float if self.is_number else plain
        return sorted(distinct.values(), key=key)

    @property
    def is_choice(self) -> bool:
        """A list of choices: not all numbers, or at most `FEW` (`FEW_WHOLE` if whole) levels."""
        is_whole = all(isinstance(value, int) for value in self.present)
        return not self.is_number or len(self.levels) <= (FEW_WHOLE if is_whole else FEW)

    @property
    def varies(self) -> bool:
        """Whether trials differ in it; having none counts as a level."""
        return len(self.levels) + (len(self.present) < len(self.values)) > 1


def parameters_of(settings: Sequence[dict[str, Any]]) -> list[Parameter]:
    """The parameters of some trials, in the order in which they first appear."""
    names = list(dict.fromkeys(name for each in settings for name in each))
    return [
        Parameter(name=name, values=tuple(each.get(name, ABSENT) for each in settings))
        for name in names
    ]


def is_number(value: Any) -> bool:
    """Whether it is a finite number; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def plain(value: Any) -> str:
    """A setting as text: numbers to four figures, which tell trials apart."""
    if value is ABSENT:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binning:
    """How a parameter's values are put into columns or rows.

    Attributes:
        labels: In order.
        places: The label's index for each trial.
    """

    labels: tuple[str, ...]
    places: tuple[int, ...]


def binned(parameter: Parameter, of: Sequence[int] | None = None) -> Binning:
    """Choices as they are; other numbers between round edges, as 0.001, 0.003 and 0.01 for rates.

    Args:
        parameter: The parameter.
        of: Only these trials, by their index; the bins are those of their values.
    """
    values = parameter.values if of is None else [parameter.values[index] for index in of]
    present = [value for value in values if value is not ABSENT]
    labels: list[str] = []
    if parameter.is_choice:
        there = set(map(plain, present))
        labels = [label for label in map(plain, parameter.levels) if label in there]
        found = [labels.index(plain(v)) if v is not ABSENT else None for v in values]
    else:
        edges = _edges(parameter, present)
        labels = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)]
        last = len(labels) - 1
        found = [
            None if v is ABSENT else min(bisect.bisect_right(edges, v) - 1, last) for v in values
        ]
    if None in found:
        labels.append(plain(ABSENT))
    # The last label's are those without a value.
    places = (len(labels) - 1 if place is None else place for place in found)
    return Binning(labels=tuple(labels), places=tuple(places))


def _edges(parameter: Parameter, present: Sequence[float]) -> list[float]:
    """Round edges of the bins of some of a parameter's values."""
    if not present:
        return []
    low, high = min(present), max(present)
    if parameter.is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 2)
        halves = [float(f"{m}e{d}") for d in decades for m in (1, 3)]
        edges = halves if high / low < 10 ** (BINS / 2) else halves[::2]
    else:
        whole = max(parameter.present) - min(parameter.present)
        step = nice_step(whole / (BINS - 1))
        first = math.floor(low / step)
        edges = [round(step * i, 12) for i in range(first, math.floor(high / step) + 2)]
    start = bisect.bisect_right(edges, low) - 1
    stop = bisect.bisect_left(edges, high, lo=start + 1)
    return edges[start : stop + 1]


def nice_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - 1e-9))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Where a parameter's values stand on an axis of length 1, and what is written beside it."""

    name: str
    positions: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]


def scaled(parameter: Parameter) -> Scale:
    """The parameter as an axis of its own."""
    if parameter.is_choice:
        labels = [plain(value) for value in parameter.levels]
        spot = {label: _share(i, len(labels)) for i, label in enumerate(labels)}
        positions = (None if v is ABSENT else spot[plain(v)] for v in parameter.values)
        ticks = tuple((spot[label], label) for label in labels)
    else:
        warp = math.log10 if parameter.is_log else float
        low, high = warp(min(parameter.present)), warp(max(parameter.present))

        def place(value: float) -> float:
            return (warp(value) - low) / (high - low)

        positions = (None if v is ABSENT else place(v) for v in parameter.values)
        ticks = tuple((place(v), f"{v:g}") for v in _round_values(parameter))
    return Scale(name=parameter.name, positions=tuple(positions), ticks=ticks)


def _share(index: int, count: int) -> float:
    return 0.5 if count == 1 else index / (count - 1)


def _round_values(parameter: Parameter) -> Iterable[float]:
    edges = _edges(parameter, parameter.present)
    low, high = min(parameter.present), max(parameter.present)
    inside = [edge for edge in edges if low <= edge <= high]
    # A narrow range may hold no round value: then its ends say where it lies.
    return inside if len(inside) > 1 else (float(f"{low:.3g}"), float(f"{high:.3g}"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Which parameters make the heat maps: columns, rows, and one map for each panel."""

    columns: Parameter
    rows: Parameter | None
    panels: Parameter | None


def heat_layout(parameters: Sequence[Parameter]) -> Layout | None:
    """Picks the axes of the heat maps among what varies; None where nothing does.

    The learning rate across, the batch size down, a map for each optimizer; or what comes nearest
    to them.
    """
    left = [parameter for parameter in parameters if parameter.varies]

    def take(preferred: str, suits: Any) -> Parameter | None:
        ranked = sorted(left, key=lambda p: p.name != preferred)
        found = next((p for p in ranked if suits(p)), None)
        if found is not None:
            left.remove(found)
        return found

    columns = take("learning_rate", lambda p: not p.is_choice) or take("learning_rate", bool)
    if columns is None:
        return None
    panels = None
    if len(left) > 1 or any(p.name == "optimizer" for p in left):
        panels = take("optimizer", lambda p: not p.is_number and len(p.levels) <= BINS)
    rows = take("batch_size", lambda p: p.is_number) or take("batch_size", bool)
    return Layout(columns=columns, rows=rows, panels=panels)
