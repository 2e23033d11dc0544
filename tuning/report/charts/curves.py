"""The charts, as Vega-Lite specs made with Altair.

Colours are CSS variables, so that a chart follows the page into the dark and onto paper without
being drawn again. Texts from outside are data, never part of an expression or a field's name.
`focus` is the key of the line to be shown alone; the page sets it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from job.runs.state import EpochRow

Spec = dict[str, Any]

# Accuracies are drawn by their error's logarithm: what matters happens in the last percent.
# Ticks of logarithmic axes, the finer ones for short ranges.
ROUND = [
    [float(f"{m}e{d}") for d in range(-5, 5) for m in digits]
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
]
ERRORS = [[*(value for value in values if value < 1), 0.9] for values in ROUND]
ENOUGH_TICKS = 4
FEW_EPOCHS = 6
LEAST = 1e-5
SHOWN = "focus === '' || focus === datum.key"
# The look of a line by what became of it: colour, width, dashes, opacity.
COLOUR, WIDTH, DASHES, OPACITY = range(4)
LOOKS: dict[str, tuple[str, float, list[int], float]] = {
    "finished": ("var(--line-finished)", 1.6, [1, 0], 0.9),
    "stopped": ("var(--line-stopped)", 1.2, [1, 0], 0.55),
    "failed": ("var(--line-failed)", 1.4, [5, 3], 0.9),
    "unfinished": ("var(--line-unfinished)", 1.4, [2, 2], 0.9),
    "winner": ("var(--line-winner)", 2.8, [1, 0], 1.0),
}
SERIES = 8
for _number in range(SERIES):
    _dashes = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])[_number // 2 % 4]
    LOOKS[f"series-{_number}"] = (f"var(--series-{_number})", 1.8, _dashes, 1.0)

CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule)",
        "gridColor": "var(--grid)",
        "tickColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelPadding": 6,
        "titlePadding": 8,
        "tickSize": 0,
    },
    "aria": False,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """How one trial or run went.

    Attributes:
        key: What `focus` and the page's other parts call it.
        look: A key of `LOOKS`.
        points: Epoch and value.
    """

    key: str
    look: str
    points: Sequence[tuple[int, float]]


def line(key: str, look: str, rows: Sequence[EpochRow], measure: str) -> Line:
    """The line of one measure, a field of an epoch."""
    points = tuple((row.epoch, getattr(row, measure)) for row in rows)
    return Line(key=key, look=look, points=points)


def curves(lines: Sequence[Line], *, is_accuracy: bool, height: int = 280) -> Spec:
    """A measure over the epochs, with a dot at each line's last; the last lines lie on top."""
    points: list[Spec] = [
        {
            "key": line.key,
            "look": line.look,
            "x": epoch,
            "y": error(value) if is_accuracy else max(value, LEAST),
            "end": epoch == line.points[-1][0],
        }
        for line in lines
        for epoch, value in line.points
    ]
    last = max(point["x"] for point in points)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=_epoch_axis(last),
        y=accuracy_axis(points) if is_accuracy else _loss_axis(points),
        color=look(COLOUR),
        opacity=opacity(),
    )
    stroke = base.mark_line(interpolate="linear", strokeCap="round").encode(
        detail="key:N", strokeWidth=look(WIDTH), strokeDash=look(DASHES)
    )
    dots = base.mark_point(filled=True, size=30).transform_filter("datum.end")
    return finish(alt.layer(stroke, dots, hit(base, "key:N")), height)


def error(accuracy: float) -> float:
    """The share that is wrong, but never less than `LEAST`, since 0 has no logarithm."""
    return max(1.0 - accuracy, LEAST)


def error_range(errors: Sequence[float]) -> tuple[float, float, list[float]]:
    """The ends of an axis for errors, and its ticks."""
    low, high, ticks = log_range(errors, ERRORS)
    return low, min(high, 1.0), ticks


def height_of(error: float, low: float, high: float) -> float:
    """Where an error stands between the ends of its axis: 1 for the lowest."""
    return math.log(high / error) / math.log(high / low)


def log_range(
    values: Sequence[float], ticks: Sequence[Sequence[float]]
) -> tuple[float, float, list[float]]:
    """The ends of a logarithmic axis, a little beyond the values, and its ticks.

    Of the ticks offered, the coarsest that are enough.
    """
    low, high = min(values), max(values)
    margin = (high / low) ** 0.03
    low, high = low / margin, high * margin
    for offered in ticks:
        inside = [tick for tick in offered if low <= tick <= high]
        if len(inside) >= ENOUGH_TICKS:
            return low, high, inside
    finest = ticks[-1]
    low = max((tick for tick in finest if tick <= low), default=low / 2)
    high = min((tick for tick in finest if tick >= high), default=high * 2)
    return low, high, [tick for tick in finest if low <= tick <= high]


def _epoch_axis(last: int) -> alt.X:
    margin = 0.03 * max(last - 1, 1)
    # Of few epochs Vega marks halves as well, and they read `1 2 2`.
    ticks: Spec = {"values": list(range(1, last + 1))} if last <= FEW_EPOCHS else {"tickMinStep": 1}
    return alt.X(
        "x:Q",
        axis=alt.Axis(title="epoch", grid=False, format="d", **ticks),
        scale=alt.Scale(domain=[1 - margin, last + margin], nice=False),
    )


def accuracy_axis(points: Sequence[Spec]) -> alt.Y:
    """Accuracies by their errors, which are the points' `y`."""
    low, high, ticks = error_range([point["y"] for point in points])
    return alt.Y(
        "y:Q",
        scale=alt.Scale(type="log", domain=[low, high], reverse=True, nice=False),
        axis=alt.Axis(values=ticks, labelExpr="format(1 - datum.value, '~%')", title=None),
    )


def _loss_axis(points: Sequence[Spec]) -> alt.Y:
    low, high, ticks = log_range([point["y"] for point in points], ROUND)
    return alt.Y(
        "y:Q",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=ticks, format="~g", title=None),
    )


def look(part: int) -> Any:
    """The encoding of one part of a line's look."""
    channel = (alt.Color, alt.StrokeWidth, alt.StrokeDash)[part]
    return channel("look:O", scale=_scale(part), legend=None)


def _scale(part: int) -> alt.Scale:
    # Left to itself, Vega-Lite takes widths for the ends of a range and puts others in between.
    return alt.Scale(
        type="ordinal", domain=list(LOOKS), range=[parts[part] for parts in LOOKS.values()]
    )


def opacity() -> alt.Opacity:
    """That of a line's look; the one in focus is clear, and the others fade."""
    return alt.Opacity(
        "look:O",
        scale=_scale(OPACITY),
        legend=None,
        condition=[
            {"test": "focus === datum.key", "value": 1.0},
            {"test": "focus !== ''", "value": 0.08},
        ],
    )


def hit(base: alt.Chart, detail: str) -> alt.Chart:
    """Broad unseen lines: a thin one is hard to point at."""
    return base.mark_line(strokeWidth=12, strokeCap="round").encode(
        detail=detail, opacity=alt.value(0.0), color=alt.value("var(--ink)")
    )


def finish(chart: alt.LayerChart | alt.Chart, height: int, *, focus: bool = True) -> Spec:
    """The chart's spec, as wide as its place, `height` in pixels; `focus` lets a key stand out."""
    if focus:
        chart = chart.add_params(alt.param(name="focus", value=""))
    chart = chart.properties(width="container", height=height)
    chart = chart.properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
    spec = _rounded(chart.to_dict())
    # The page has the same config for all charts, and no reader fetches a schema.
    spec.pop("config", None)
    spec.pop("$schema", None)
    return spec


def _rounded(part: Any) -> Any:
    """Numbers to six figures: no eye sees more, and they are half of what a spec weighs."""
    if isinstance(part, float):
        return float(f"{part:.6g}")
    if isinstance(part, dict):
        return {name: _rounded(value) for name, value in part.items()}
    return [_rounded(value) for value in part] if isinstance(part, list | tuple) else part
