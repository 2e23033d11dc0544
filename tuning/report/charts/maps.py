"""The charts in which each trial has one place: parallel coordinates, heat maps, time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import altair as alt

from tuning.report.charts.curves import (
    COLOUR,
    DASHES,
    ROUND,
    SHOWN,
    WIDTH,
    Spec,
    accuracy_axis,
    error,
    finish,
    hit,
    log_range,
    look,
    opacity,
)
from tuning.report.charts.parameters import Scale

HEAT_STEPS = 5
CELL_WIDTH = 98
# The time from which on a unit is used, and its length, in seconds.
UNITS = (("hours", 3 * 3600.0, 3600.0), ("minutes", 180.0, 60.0), ("seconds", 0.0, 1.0))
# Times so far apart are drawn by their ratio.
FAR = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Path:
    """A trial in the parallel coordinates; `rank` is the step of its colour."""

    key: str
    look: str
    rank: int


# Below the axis: the trial does not have the parameter.
NOWHERE = -0.12


def parallel(paths: Sequence[Path], axes: Sequence[Scale], *, height: int = 260) -> Spec:
    """An axis for each setting, and one line for each trial across them. The last lie on top."""
    points: list[Spec] = [
        {
            "key": path.key,
            "look": path.look,
            "rank": path.rank,
            "x": index,
            "y": NOWHERE if axis.positions[number] is None else axis.positions[number],
        }
        for number, path in enumerate(paths)
        for index, axis in enumerate(axes)
    ]
    ticks = [
        {"x": index, "y": place, "text": text}
        for index, axis in enumerate(axes)
        for place, text in axis.ticks
    ]
    ticks += [
        {"x": index, "y": NOWHERE, "text": "–"}
        for index, axis in enumerate(axes)
        if None in axis.positions
    ]
    names = [{"x": index, "y": 1.14, "text": axis.name} for index, axis in enumerate(axes)]
    bottom = min(point["y"] for point in points)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.3, len(axes) - 0.75], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[min(bottom, -0.03), 1.16], nice=False))
    ranks = alt.Scale(
        domain=list(range(HEAT_STEPS)), range=[f"var(--rank-{i})" for i in range(HEAT_STEPS)]
    )
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y)
    stroke = base.mark_line(interpolate="monotone", strokeCap="round").encode(
        detail="key:N",
        color=alt.Color(
            "rank:O",
            scale=ranks,
            legend=None,
            condition={"test": "datum.look === 'winner'", "value": "var(--line-winner)"},
        ),
        strokeWidth=look(WIDTH),
        strokeDash=look(DASHES),
        opacity=opacity(),
    )
    rules = (
        alt.Chart(alt.Data(values=[{"x": i, "y": 0, "y2": 1} for i in range(len(axes))]))
        .mark_rule(color="var(--rule)")
        .encode(x=x, y=y, y2="y2:Q")
    )
    shared = {"x": x, "y": y, "text": "text:N"}
    halo = {
        "color": "var(--surface)",
        "stroke": "var(--surface)",
        "strokeWidth": 4,
        "strokeJoin": "round",
    }
    place = {"align": "right", "dx": -8, "fontSize": 12, "limit": 110}
    labels = alt.Chart(alt.Data(values=ticks))
    # Texts are written twice: first a rim in the colour of the page, which lines pass behind.
    rim = labels.mark_text(**place, **halo).encode(**shared)
    written = labels.mark_text(**place, color="var(--muted)").encode(**shared)
    titles = (
        alt.Chart(alt.Data(values=names))
        .mark_text(fontSize=12, fontWeight=600, color="var(--ink)", limit=1000 / len(axes))
        .encode(**shared)
    )
    layers = alt.layer(rules, stroke, hit(base, "key:N"), rim, written, titles)
    return finish(layers, height)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a heat map.

    Attributes:
        column, row: Its labels.
        text: What is written in it.
        step: Of the colour, 0 to `HEAT_STEPS - 1`.
        tip: Lines of what is shown when it is pointed at.
    """

    column: str
    row: str
    text: str
    step: int
    tip: tuple[tuple[str, str], ...]


def heat(
    cells: Sequence[Cell], columns: Sequence[str], rows: Sequence[str], titles: tuple[str, str]
) -> Spec:
    """A map of rows by columns, with cells of one size in all maps; an empty cell had no trial."""
    values = [
        {"c": cell.column, "r": cell.row, "text": cell.text, "step": cell.step, "tip": cell.tip}
        for cell in cells
    ]
    steps = list(range(HEAT_STEPS))
    axis = {"grid": False, "domain": False}
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "c:O",
            scale=alt.Scale(domain=list(columns)),
            axis=alt.Axis(title=titles[0], labelAngle=0, labelOverlap=True, **axis),
        ),
        y=alt.Y(
            "r:O",
            scale=alt.Scale(domain=list(rows)),
            axis=alt.Axis(title=titles[1], labelLimit=120, **axis) if titles[1] else None,
        ),
    )
    fills = alt.Scale(domain=steps, range=[f"var(--heat-{i})" for i in steps])
    inks = alt.Scale(domain=steps, range=[f"var(--heat-ink-{i})" for i in steps])
    boxes = base.mark_rect(cornerRadius=3, stroke="var(--surface)", strokeWidth=2).encode(
        fill=alt.Fill("step:O", scale=fills, legend=None)
    )
    texts = base.mark_text(fontSize=12).encode(
        text="text:N", color=alt.Color("step:O", scale=inks, legend=None)
    )
    layers = alt.layer(boxes, texts).resolve_scale(color="independent")
    spec = finish(layers, 38 * len(rows), focus=False)
    del spec["autosize"]
    return {**spec, "width": {"step": CELL_WIDTH}}


def times(parts: Sequence[tuple[str, float, float]], *, height: int = 170) -> Spec:
    """Bars of the time for which trials held their resources: to train and validate, or else.

    Args:
        parts: Key, seconds in training and validation, and seconds of everything else, by trial.
        height: Of the plot, in pixels.
    """
    unit, length = _unit(max(first + second for _, first, second in parts))
    values = [
        {"key": key, "part": part, "time": seconds / length, "order": order}
        for key, *both in parts
        for order, (part, seconds) in enumerate(zip(("training", "other"), both, strict=True))
    ]
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(cornerRadius=1)
        .encode(
            x=alt.X(
                "key:O",
                sort=None,
                scale=alt.Scale(paddingInner=0.4, paddingOuter=0.2),
                axis=alt.Axis(title="trial", labelAngle=0, labelOverlap=True, domain=False),
            ),
            y=alt.Y("time:Q", axis=alt.Axis(title=unit, tickCount=4, domain=False)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(
                    domain=["training", "other"], range=["var(--bar)", "var(--bar-other)"]
                ),
                legend=None,
            ),
            order="order:Q",
            opacity=alt.condition(SHOWN, alt.value(1.0), alt.value(0.2)),
        )
    )
    return finish(bars, height)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spot:
    """A trial by its time and accuracy.

    Attributes:
        key, look: As those of a line.
        seconds: In training and validation.
        accuracy: Of the weights that are kept.
        is_whole: It was trained to its end.
        is_on_front: No other is better in both.
    """

    key: str
    look: str
    seconds: float
    accuracy: float
    is_whole: bool
    is_on_front: bool


def trade(spots: Sequence[Spot], *, height: int = 280) -> Spec:
    """Accuracy by time; a line joins the front, whose trials are numbered. The last lie on top."""
    unit, length = _unit(max(spot.seconds for spot in spots))
    points: list[Spec] = [
        {
            "key": spot.key,
            "look": spot.look,
            "x": spot.seconds / length,
            "y": error(spot.accuracy),
            "whole": spot.is_whole,
            "front": spot.is_on_front,
        }
        for spot in spots
    ]
    y = accuracy_axis(points)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=_time_axis([point["x"] for point in points], unit),
        y=y,
        color=look(COLOUR),
        opacity=opacity(),
    )
    whole, front = base.transform_filter("datum.whole"), base.transform_filter("datum.front")
    # Between two of the front nothing better is known than the faster one.
    stairs = front.mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.2).encode(
        color=alt.value("var(--muted)"), opacity=alt.value(1.0)
    )
    cut = base.transform_filter("!datum.whole").mark_point(filled=False, size=45, strokeWidth=1.5)
    numbers = front.mark_text(dy=-12, fontSize=12).encode(
        text="key:N", color=alt.value("var(--ink)")
    )
    near = base.mark_point(filled=True, size=400).encode(
        opacity=alt.value(0.0), color=alt.value("var(--ink)")
    )
    return finish(
        alt.layer(stairs, cut, whole.mark_point(filled=True, size=70), numbers, near), height
    )


def _time_axis(values: Sequence[float], unit: str) -> alt.X:
    title = f"training and validation, {unit}"
    low, high = min(values), max(values)
    if low > 0 and high / low >= FAR:
        low, high, ticks = log_range(values, ROUND)
        return alt.X(
            "x:Q",
            scale=alt.Scale(type="log", domain=[low, high], nice=False),
            axis=alt.Axis(title=title, values=ticks, format="~g", grid=False),
        )
    margin = 0.05 * (high - low) or 0.05 * high or 1.0
    return alt.X(
        "x:Q",
        scale=alt.Scale(domain=[max(low - margin, 0.0), high + margin], nice=False),
        axis=alt.Axis(title=title, grid=False, tickCount=6),
    )


def _unit(longest: float) -> tuple[str, float]:
    """The unit of times of which this is the longest, and its length in seconds."""
    unit, _, length = next(each for each in UNITS if longest >= each[1])
    return unit, length


def step_of(rank: int, count: int) -> int:
    """The colour step of the `rank`-th (from 0) best of `count`."""
    if count <= 1:
        return HEAT_STEPS - 1
    return HEAT_STEPS - 1 - math.floor(rank / count * HEAT_STEPS)
