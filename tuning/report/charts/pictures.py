"""The charts of a sweep: which of its numbers go into which picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from job.text import counted
from tuning.records import FAILED, FINISHED, STOPPED, UNFINISHED, Sweep, Trial, merit
from tuning.report import text
from tuning.report.charts import curves as charts
from tuning.report.charts import maps
from tuning.report.charts.parameters import (
    Binning,
    Layout,
    Scale,
    binned,
    heat_layout,
    parameters_of,
    scaled,
)
from tuning.report.page import Chart
from tuning.report.totals import Best, front, search_trials

# More axes than this can't be told apart side by side.
MAX_AXES = 9
IN_TABLE = "The values are in the table of all trials."
WINNER = "winner"

# Row and column of a cell.
Spot = tuple[int, int]
# As `merit` gives it.
Merit = tuple[float, float]


def key_of(trial: Trial) -> str:
    """What charts and tables call a trial."""
    return str(trial.plan.number)


def accuracy_of(trial: Trial) -> float:
    """The validation accuracy of the weights that are kept, of a trial that has an epoch."""
    return merit(trial.outcome)[0]


def look_of(trial: Trial, best: Best) -> str:
    """`winner` for the best trial so far, else its state; a key of `LOOKS`."""
    return WINNER if trial.plan.number == best.trial.plan.number else trial.outcome.state


def by_look(trials: Sequence[Trial], best: Best) -> list[Trial]:
    """Trials in the order in which they are drawn: what matters most lies on top."""
    order = (STOPPED, FAILED, UNFINISHED, FINISHED, WINNER)
    return sorted(trials, key=lambda trial: order.index(look_of(trial, best)))


def curves(sweep: Sweep, best: Best) -> list[Chart]:
    """Validation accuracy and loss of all trials over their epochs."""
    drawn = [trial for trial in by_look(sweep.trials, best) if trial.outcome.history]
    most = max(len(trial.outcome.history) for trial in drawn)
    last = best.trial.outcome.history[-1]
    kinds = (
        ("val_accuracy", "Validation accuracy", text.percent(last.val_accuracy)),
        ("val_loss", "Validation loss", text.loss(last.val_loss)),
    )
    return [
        Chart(
            name=f"curve-{measure}",
            title=title,
            spec=charts.curves(
                [
                    charts.line(key_of(t), look_of(t, best), t.outcome.history, measure)
                    for t in drawn
                ],
                is_accuracy=measure == "val_accuracy",
            ),
            alternative=f"Line chart: {title.lower()} of {counted(len(drawn), 'trial')} over "
            f"up to {counted(most, 'epoch')}. Trial {best.trial.plan.number}, the best, ends "
            f"at {end}. All values are in epochs.csv.",
        )
        for measure, title, end in kinds
    ]


def parallel(found: Sequence[Trial], best: Best) -> list[Chart]:
    """Each trial as a line across its settings to its accuracy; nothing where no setting varies."""
    trials = by_look(found, best)
    varying = [p for p in parameters_of([t.plan.settings for t in trials]) if p.varies]
    if not varying:
        return []
    ranking = _ranked(trials)
    paths = [
        maps.Path(
            key=key_of(trial),
            look=look_of(trial, best),
            rank=maps.step_of(ranking.index(trial), len(ranking)),
        )
        for trial in trials
    ]
    axes = [
        dataclasses.replace(scaled(parameter), name=text.words(parameter.name))
        for parameter in varying[: MAX_AXES - 1]
    ]
    axes.append(_accuracy_scale([accuracy_of(trial) for trial in trials]))
    names = ", ".join(axis.name for axis in axes)
    return [
        Chart(
            name="parallel",
            spec=maps.parallel(paths, axes),
            alternative=f"Parallel coordinates of {counted(len(trials), 'trial')}: {names}. "
            + IN_TABLE,
        )
    ]


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: merit(trial.outcome), reverse=True)


def _accuracy_scale(accuracies: Sequence[float]) -> Scale:
    """The accuracy as the last axis, stretched towards 100 % as in the learning curves."""
    errors = [charts.error(accuracy) for accuracy in accuracies]
    low, high, ticks = charts.error_range(errors)
    return Scale(
        name="validation accuracy",
        positions=tuple(charts.height_of(e, low, high) for e in errors),
        ticks=tuple(
            (charts.height_of(tick, low, high), f"{(1 - tick) * 100:.6g}{text.THIN}%")
            for tick in ticks
        ),
    )


def heat(found: Sequence[Trial]) -> list[Chart]:
    """The best validation accuracy by two settings, a map for each value of a third.

    Nothing where no setting varies.
    """
    layout = heat_layout(parameters_of([trial.plan.settings for trial in found]))
    if layout is None:
        return []
    panels = binned(layout.panels) if layout.panels else _one_bin(len(found))
    maps_of = []
    for panel, title in enumerate(panels.labels):
        mine = [index for index, place in enumerate(panels.places) if place == panel]
        columns = binned(layout.columns, mine)
        rows = binned(layout.rows, mine) if layout.rows else _one_bin(len(mine))
        maps_of.append(
            _Map(title=title, columns=columns, rows=rows, trials=[found[i] for i in mine])
        )
    every = [merit(trials[0].outcome) for each in maps_of for trials in each.cells.values()]
    ranking = sorted(every, reverse=True)
    return [_heat_map(each, f"heat-{n}", ranking, layout) for n, each in enumerate(maps_of)]


def _one_bin(count: int) -> Binning:
    return Binning(labels=("",), places=(0,) * count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Map:
    """The trials of one heat map, and where in it they are."""

    title: str
    columns: Binning
    rows: Binning
    trials: list[Trial]

    @property
    def cells(self) -> dict[Spot, list[Trial]]:
        """The trials by row and column, the best of each cell first."""
        cells: dict[Spot, list[Trial]] = {}
        spots = zip(self.rows.places, self.columns.places, strict=True)
        for trial, spot in zip(self.trials, spots, strict=True):
            cells.setdefault(spot, []).append(trial)
        return {spot: _ranked(trials) for spot, trials in cells.items()}


def _heat_map(drawn: _Map, name: str, ranking: Sequence[Merit], layout: Layout) -> Chart:
    columns, rows, cells = drawn.columns.labels, drawn.rows.labels, drawn.cells
    across = text.words(layout.columns.name)
    down = text.words(layout.rows.name) if layout.rows else ""
    top = max(cells, key=lambda spot: merit(cells[spot][0].outcome))
    where = " and ".join(filter(None, (columns[top[1]], rows[top[0]])))
    return Chart(
        name=name,
        title=drawn.title,
        spec=maps.heat(
            [
                maps.Cell(
                    column=columns[column],
                    row=rows[row],
                    text=_cell_text(trials[0]),
                    step=maps.step_of(ranking.index(merit(trials[0].outcome)), len(ranking)),
                    tip=_cell_tip(trials),
                )
                for (row, column), trials in cells.items()
            ],
            columns,
            # The lowest at the bottom, as on any axis.
            rows[::-1],
            (across, down),
        ),
        alternative=f"Heat map {drawn.title}: best validation accuracy by "
        f"{' and '.join(filter(None, (across, down)))}. The best cell, {where}, has "
        f"{text.percent(accuracy_of(cells[top][0]))}. {IN_TABLE}",
    )


def _cell_text(top: Trial) -> str:
    mark = "" if top.outcome.state == FINISHED else "*"
    return f"{accuracy_of(top) * 100:.2f}{mark}"


def _cell_tip(trials: Sequence[Trial]) -> tuple[tuple[str, str], ...]:
    top = trials[0]
    return (
        ("best", f"{text.percent(accuracy_of(top))}, trial {top.plan.number}"),
        ("its state", f"{top.outcome.state}, {counted(len(top.outcome.history), 'epoch')}"),
        ("trials here", ", ".join(str(trial.plan.number) for trial in trials)),
    )


def trade(sweep: Sweep, best: Best) -> list[Chart]:
    """Accuracy by time of the search trials that ended; nothing where less than two finished."""
    of_front = front(sweep)
    ended = [t for t in search_trials(sweep) if t.outcome.state in (FINISHED, STOPPED)]
    drawn = by_look([t for t in ended if t.outcome.best], best)
    finished = [t for t in drawn if t.outcome.state == FINISHED]
    if len(finished) < 2:
        return []
    spots = [
        maps.Spot(
            key=key_of(trial),
            look=look_of(trial, best),
            seconds=trial.outcome.train_seconds,
            accuracy=accuracy_of(trial),
            is_whole=trial.outcome.state == FINISHED,
            is_on_front=trial in of_front,
        )
        for trial in drawn
    ]
    return [
        Chart(
            name="front",
            spec=maps.trade(spots),
            alternative=f"Scatter plot: validation accuracy by time in training and validation of "
            f"{counted(len(finished), 'trial')} that finished and {len(drawn) - len(finished)} "
            f"that were stopped. The front: trial {', '.join(map(key_of, of_front))}. {IN_TABLE}",
        )
    ]


def times(sweep: Sweep) -> list[Chart]:
    """How long each trial held its resources, and for how much of that it trained."""
    held = [trial for trial in sweep.trials if trial.outcome.seconds > 0]
    if not held:
        return []
    parts = [
        (
            key_of(trial),
            trial.outcome.train_seconds,
            max(trial.outcome.seconds - trial.outcome.train_seconds, 0.0),
        )
        for trial in held
    ]
    return [
        Chart(
            name="times",
            spec=maps.times(parts),
            alternative=f"Bar chart: time for which {counted(len(parts), 'trial')} held their "
            f"resources, in training and validation, and otherwise. {IN_TABLE}",
        )
    ]
