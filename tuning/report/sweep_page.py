"""What the page of a sweep shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from job.config.config import FIELDS
from job.errors import InputError
from tuning.records import FAILED, FINISHED, SEARCH, STOPPED, UNFINISHED, Sweep, Trial, merit
from tuning.report import text
from tuning.report import totals as facts
from tuning.report.charts import pictures
from tuning.report.charts.importance import MIN_TRIALS, drawn_parameters, importances
from tuning.report.charts.parameters import ABSENT, is_number
from tuning.report.frame import SECONDS_PER_HOUR, Frame, Price
from tuning.report.grid import Column, numbers, texts
from tuning.report.page import render
from tuning.space.advice import NEXT_SPACE_FILE, Advice, command
from tuning.space.space import SearchRange, parse_space

STATES = (FINISHED, STOPPED, FAILED, UNFINISHED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A trial in the table: how it stands out, and which trial it repeats."""

    key: str
    state: str
    is_best: bool
    repeats: int | None


def sweep_page(sweep: Sweep, advice: Advice, frame: Frame) -> bytes:
    """The page of a sweep of which at least one search trial has an epoch."""
    searched = facts.search_trials(sweep)
    found = [trial for trial in searched if trial.outcome.best]
    best = facts.best_of(sweep)
    assert best is not None  # Where a trial has an epoch, one leads.
    counts = facts.states(sweep.trials)
    # Best first: those without an epoch at the end, by number.
    ordered = sorted(sweep.trials, key=lambda trial: merit(trial.outcome), reverse=True)
    drawn = {
        "curves": pictures.curves(sweep, best),
        "parallel": pictures.parallel(found, best),
        "heat": pictures.heat(found),
        "trade": pictures.trade(sweep, best),
        "times": pictures.times(sweep),
    }
    accuracies = [pictures.accuracy_of(trial) for trial in found]
    of_front, held = facts.front(sweep), facts.held_by_one(sweep.config)
    spent = facts.spent(sweep, frame.price)
    shown = {
        "title": sweep.name,
        "sweep": sweep,
        "best": best,
        "model": model_of(sweep, best.trial),
        "counts": [(state, counts[state]) for state in STATES if counts[state]],
        "drawn_states": [
            state
            for state in STATES
            if any(t.outcome.state == state and t.outcome.history for t in sweep.trials)
        ],
        "searched": len(searched),
        "repeated": len(sweep.trials) - len(searched),
        "columns": columns_of(ordered, held, frame.price),
        "rows": [row_of(trial, best) for trial in ordered],
        "pictures": drawn,
        "ranked": importances(drawn_parameters(sweep, found), accuracies),
        "compared": len(found),
        "min_trials": MIN_TRIALS,
        "savings": facts.savings(sweep),
        "front": [(t, settings_text(t)) for t in of_front],
        "near": facts.near_best(of_front) if of_front else None,
        "near_points": f"{100 * facts.NEAR:g}",
        "cut_short": counts[STOPPED],
        "devices": sorted({t.outcome.device for t in of_front}),
        "advice": advice,
        "next_command": command(sweep, advice, f"{frame.place}{NEXT_SPACE_FILE}"),
        "spent": spent,
        "hours_held": f"{spent.held / SECONDS_PER_HOUR:.4f}",
        "held": held,
        "price_text": text.unit(f"{frame.price.amount:g}", frame.price.currency)
        if frame.price
        else "",
        "failures": [(t, settings_text(t)) for t in sweep.trials if t.outcome.state == FAILED],
        "provenance": provenance(sweep),
    }
    every = [chart for charts in drawn.values() for chart in charts]
    return render("sweep.html.j2", frame, shown=shown, pictures=every, tips=tips_of(sweep))


def model_of(sweep: Sweep, trial: Trial) -> str:
    """The trial's model; the sweep's where this version does not know the trial's settings."""
    config = facts.config_of(sweep, trial)
    return config.model if config else str(sweep.base.get("model", FIELDS["model"].default))


def row_of(trial: Trial, best: facts.Best) -> Row:
    """The trial's row; of a repeat, with the number of the trial that it repeats."""
    return Row(
        key=pictures.key_of(trial),
        state=trial.outcome.state,
        is_best=trial.plan.number == best.trial.plan.number,
        repeats=None if trial.plan.kind == SEARCH else trial.plan.repeats,
    )


def columns_of(trials: Sequence[Trial], held: facts.Held, price: Price | None) -> list[Column]:
    """The table of all trials, but for its first two columns: number and state."""
    outcomes = [trial.outcome for trial in trials]
    names = dict.fromkeys(name for trial in trials for name in trial.plan.settings)
    accuracies = [o.best.val_accuracy if o.best else None for o in outcomes]
    losses = [o.best.val_loss if o.best else None for o in outcomes]
    columns = [
        _setting(name, [t.plan.settings.get(name, ABSENT) for t in trials]) for name in names
    ]
    columns += [
        numbers("seed", [(str(t.plan.seed), t.plan.seed) for t in trials]),
        numbers("epochs", [(str(len(o.history)), len(o.history)) for o in outcomes]),
        numbers("validation accuracy", [(text.percent(v), v) for v in accuracies]),
        numbers("validation loss", [(text.loss(v), v) for v in losses]),
        numbers("training", [(text.seconds(v), v) for v in map(facts.train_seconds_of, outcomes)]),
        numbers("total", [(text.seconds(v), v) for v in map(facts.seconds_of, outcomes)]),
    ]
    seconds = [facts.seconds_of(outcome) for outcome in outcomes]
    columns.append(_amounts("CPU-hours", map(held.cpu_hours, seconds)))
    if held.gpus:
        columns.append(_amounts("GPU-hours", map(held.gpu_hours, seconds)))
    if price is not None:
        label = f"cost, {price.currency}" if price.currency else "cost"
        columns.append(_amounts(label, map(price.of, seconds)))
    return columns


def _amounts(label: str, values: Iterable[float | None]) -> Column:
    return numbers(label, [(text.amount(value), value) for value in values])


def _setting(name: str, values: Sequence[Any]) -> Column:
    if all(value is ABSENT or is_number(value) for value in values):
        return numbers(text.words(name), [(text.setting(value), value) for value in values])
    return texts(text.words(name), [text.setting(value) for value in values])


def settings_text(trial: Trial) -> str:
    """The searched settings in one line, such as `optimizer adam, batch size 64`."""
    return ", ".join(f"{text.words(k)} {text.setting(v)}" for k, v in trial.plan.settings.items())


def tips_of(sweep: Sweep) -> dict[str, list[tuple[str, str]]]:
    """What is shown when a trial is pointed at in a chart."""
    return {
        pictures.key_of(trial): [
            ("trial", f"{trial.plan.number}, {trial.outcome.state}"),
            *((text.words(k), text.setting(v)) for k, v in trial.plan.settings.items()),
            ("validation accuracy", text.percent(best.val_accuracy if best else None)),
            ("epochs", str(len(trial.outcome.history))),
        ]
        for trial in sweep.trials
        for best in (trial.outcome.best,)
    }


def provenance(sweep: Sweep) -> list[tuple[str, list[tuple[str, str]]]]:
    """How the sweep was made, in named lists of name and value."""
    seeds = sorted({trial.plan.seed for trial in sweep.trials})
    devices = sorted({t.outcome.device for t in sweep.trials if t.outcome.device})
    ended = facts.spent(sweep, None).last
    where = {
        "hardware": sweep.hardware,
        "trained on": ", ".join(devices) or text.NONE,
        "each trial": str(facts.held_by_one(sweep.config)),
        "seeds": ", ".join(map(str, seeds)),
        "started": text.when(sweep.created),
        "last trial ended": text.when(ended),
    }
    given = {text.words(k): value for k, value in sweep.config.items() if value is not None}
    lists = {
        "Where and when": where,
        "Space": _space(sweep),
        "Sweep": given,
        "Common to all trials": {text.words(k): value for k, value in sweep.base.items()},
        "Versions": sweep.versions,
        "Data set": _dataset(sweep.dataset),
    }
    return [(title, text.flat(document)) for title, document in lists.items() if document]


def _space(sweep: Sweep) -> dict[str, Any]:
    """A line for each way in which a setting was chosen."""
    try:
        ways = parse_space(sweep.space, sweep.name, is_kept=True).parameters
    except InputError:
        return sweep.space
    return {text.words(way.key): _range_text(way) for way in ways}


def _range_text(way: SearchRange) -> str:
    if way.values:
        found = ", ".join(map(text.setting, way.values))
    else:
        found = f"{way.low:g} to {way.high:g}" + (", even in the logarithm" if way.log else "")
    grown = {"linear": "batch size", "sqrt": "root of the batch size"}.get(way.with_batch or "")
    return f"{found}; grows with the {grown}" if grown else found


def _dataset(document: dict[str, Any]) -> dict[str, Any]:
    """A data set's record, with each file beside its hash."""
    files = document.get("files")
    if not isinstance(files, list) or not all(isinstance(f, dict) and "name" in f for f in files):
        return document
    hashes = {f"SHA-256 of {file['name']}": file.get("sha256", "") for file in files}
    return {**{text.words(k): v for k, v in document.items() if k != "files"}, **hashes}
