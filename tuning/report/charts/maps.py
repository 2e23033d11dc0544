"""The charts in which each trial has one place: parallel coordinates, heat maps, and times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import altair as alt

from tuning.report.charts.curves import DASHES, SHOWN, WIDTH, Spec, finish, hit, look, opacity
from tuning.report.charts.parameters import Scale

HEAT_STEPS = 5
CELL_WIDTH = 98
# The time from which on a unit is used, and its length, in seconds.
UNITS = (("hours", 3 * 3600.0, 3600.0), ("minutes", 180.0, 60.0), ("seconds", 0.0, 1.0))


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
    longest = max(first + second for _, first, second in parts)
    unit, _, length = next(each for each in UNITS if longest >= each[1])
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


def step_of(rank: int, count: int) -> int:
    """The colour step of the `rank`-th (from 0) best of `count`."""
    if count <= 1:
        return HEAT_STEPS - 1
    return HEAT_STEPS - 1 - math.floor(rank / count * HEAT_STEPS)
