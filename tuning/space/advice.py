"""What a sweep says about the next one: where to search, for how long, and what chance explains."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

from job.config.config import is_fixed
from job.config.fields import typed
from job.config.resolve import over_recipe
from job.errors import InputError
from job.stats import mean_sd
from job.text import counted
from tuning.config import RUN_FIELDS, SWEEP_FIELDS
from tuning.records import FAILED, FINISHED, REPEAT, SEARCH, STOPPED, Sweep, Trial, merit
from tuning.space.moves import Move, move_of, of_best
from tuning.space.space import SearchRange, Space, parse_space

NEXT_SPACE_FILE = "next-space.yaml"
# Fewer trials than this tell nothing, and the best are at least so many.
MIN_TRIALS = 8
LEAST_BEST = 3
# How many times its standard error a difference has to be for seeds alone not to explain it.
TOLD_APART = 2.0
# Of settings that decide no result, those that a next sweep has as well.
CARRIED = ("data", "device")
# What a sweep fills in where nothing is given.
FILLED_IN = ("cpus_per_trial", "gpus_per_trial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """What to try next.

    Attributes:
        compared: Search trials that ended with an epoch at least.
        best: The numbers of the best of them, the best first; empty where too few are known.
        finished: How many of the best were trained to their end.
        findings: What was found, a sentence or two each.
        space: The next space; None where there is nothing to change.
        epochs: Epochs of a whole trial, where more seem to help; else None.
    """

    compared: int
    best: tuple[int, ...] = ()
    finished: int = 0
    findings: tuple[str, ...] = ()
    space: Space | None = None
    epochs: int | None = None


def advice(sweep: Sweep) -> Advice:
    """What to try next. Each setting is looked at alone."""
    ended = [t for t in sweep.trials if t.plan.kind == SEARCH and _has_ended(t)]
    if len(ended) < MIN_TRIALS:
        return Advice(
            compared=len(ended),
            findings=(
                f"Too few trials ended with an epoch to say where to search: {len(ended)}, of "
                f"{MIN_TRIALS} that are needed.",
            ),
        )
    ranked = sorted(ended, key=lambda trial: merit(trial.outcome), reverse=True)
    best = ranked[: max(LEAST_BEST, math.ceil(len(ranked) / 4))]
    moves = _moves(sweep, best)
    space = _next_space(moves)
    epochs, on_epochs = _on_epochs(sweep, best)
    told = [move.says for _, move in moves if move is not None]
    if not told:
        told = [
            "The best trials lie at no edge of what was tried, nor close together, beyond chance."
        ]
    return Advice(
        compared=len(ended),
        best=tuple(trial.plan.number for trial in best),
        finished=sum(trial.outcome.state == FINISHED for trial in best),
        findings=(*told, *on_epochs, *_on_seeds(sweep)),
        space=space,
        epochs=epochs,
    )


def command(sweep: Sweep, advice: Advice, file: str) -> str:
    """What to type for the next sweep; empty where nothing is to be changed.

    Args:
        sweep: The last one.
        advice: What follows from it.
        file: Where the next space is written.
    """
    if advice.space is None and advice.epochs is None:
        return ""
    space = sweep.config.get("space") if advice.space is None else file
    given: dict[str, Any] = {"name": f"{sweep.name}-next", **({"space": space} if space else {})}
    for name, value in sweep.base.items():
        is_usual = value is None or (name == "xla" and not value)
        if name in RUN_FIELDS and (is_fixed(name) or name in CARRIED) and not is_usual:
            given[name] = value
    for name, field in SWEEP_FIELDS.items():
        value = sweep.config.get(name, field.default)
        if field.metadata["fixed"] and name not in FILLED_IN and value != field.default:
            given[name] = value
    if advice.epochs is not None:
        given["max_epochs"] = advice.epochs
    fields = {**RUN_FIELDS, **SWEEP_FIELDS}
    shown = (k for k in given if not fields[k].metadata["hidden"])
    return shlex.join(["lenet", "sweep", *(word for k in shown for word in typed(k, given[k]))])


def _has_ended(trial: Trial) -> bool:
    return trial.outcome.state in (FINISHED, STOPPED) and trial.outcome.best is not None


def _moves(sweep: Sweep, best: Sequence[Trial]) -> list[tuple[SearchRange, Move | None]]:
    try:
        ways = parse_space(sweep.space, sweep.name, is_kept=True).parameters
    except InputError:
        return []
    is_grid = sweep.config.get("search") == "grid"
    found = {
        way.key: [t.plan.drawn[way.key] for t in best if way.key in t.plan.drawn] for way in ways
    }
    return [
        (way, move_of(way, found[way.key], is_grid=is_grid))
        if len(found[way.key]) >= LEAST_BEST
        else (way, None)
        for way in ways
    ]


def _next_space(moves: Sequence[tuple[SearchRange, Move | None]]) -> Space | None:
    ways = [move.way if move else way for way, move in moves]
    if all(new == old for new, (old, _) in zip(ways, moves, strict=True)):
        return None
    left = {(way.field, value) for way in ways for value in way.values}
    gone = {(way.field, value) for way, _ in moves for value in way.values} - left
    # What hangs on a choice that is left out is left out as well.
    kept = [
        way
        for way in ways
        if not any(gone >= {(name, v) for v in values} for name, values in way.when.items())
    ]
    return Space(parameters=tuple(kept))


def _on_epochs(sweep: Sweep, best: Sequence[Trial]) -> tuple[int | None, list[str]]:
    """Whether longer training seems to help: epochs to try, and words."""
    whole = [trial for trial in best if trial.outcome.state == FINISHED]
    late = [t for t in whole if t.outcome.best == t.outcome.history[-1]]
    if not late or len(late) <= len(whole) / 2:
        return None, []
    epochs = max(len(trial.outcome.history) for trial in late)
    said = (
        f"Epochs: {of_best(len(late), len(whole))} that were trained to their end had the lowest "
        f"validation loss in their last epoch, {epochs}."
    )
    if {_schedule(sweep, trial) for trial in late} == {"constant"}:
        return 2 * epochs, [f"{said} More may help: next --max-epochs {2 * epochs}."]
    # The rate is 0 by then, which makes the last epoch the best whatever their number is.
    return None, [
        f"{said} With a schedule that lowers the learning rate to 0 that is usual: only trials "
        f"with more epochs, --max-epochs {2 * epochs}, say whether they help."
    ]


def _schedule(sweep: Sweep, trial: Trial) -> str | None:
    """That of a trial; None where this version does not know its settings."""
    try:
        return over_recipe({**sweep.base, **trial.plan.settings}).schedule
    except (InputError, TypeError):
        return None


def _on_seeds(sweep: Sweep) -> list[str]:
    """Whether the best two settings differ by more than seeds do."""
    groups = _by_settings(sweep)
    several = [group for group in groups if len(group) > 1]
    if not several:
        return [
            "Seeds: each setting was trained with one, so that nobody knows how much of a "
            "difference is chance; --repeats 2 trains the finalists with two more."
        ]
    if len(groups) < 2:
        return []
    freedom = sum(len(group) - 1 for group in several)
    squares = sum(
        (len(group) - 1) * statistics.variance(map(_accuracy, group)) for group in several
    )
    deviation = math.sqrt(squares / freedom)
    # Those with repeats can win; among the others the best by one seed is the luckiest.
    first = max(several, key=_mean)
    others = several if len(several) > 1 else groups
    second = max((group for group in others if group is not first), key=_mean)
    apart = abs(_mean(first) - _mean(second))
    error = deviation * math.sqrt(1 / len(first) + 1 / len(second))
    numbers = f"{first[0].plan.number} and {second[0].plan.number}"
    said = (
        f"Seeds: trials {numbers}, the best two settings, differ by {100 * apart:.2f} points of "
        f"validation accuracy on average. Seeds alone move one by {100 * deviation:.2f} (standard "
        f"deviation; {freedom + len(several)} runs of {counted(len(several), 'setting')})"
    )
    if apart > TOLD_APART * error:
        return [f"{said}, which is too little to explain it."]
    return [f"{said}, which is enough to explain it: take the one that you prefer, the faster say."]


def _by_settings(sweep: Sweep) -> list[list[Trial]]:
    """The trials that ended, those of the same settings together, the search trial first."""
    groups: dict[int, list[Trial]] = {}
    for kind in (SEARCH, REPEAT):
        for trial in sweep.trials:
            number = trial.plan.number if kind == SEARCH else trial.plan.repeats
            is_ready = trial.outcome.state != FAILED and _has_ended(trial)
            if trial.plan.kind == kind and number is not None and is_ready:
                groups.setdefault(number, []).append(trial)
    return list(groups.values())


def _accuracy(trial: Trial) -> float:
    return merit(trial.outcome)[0]


def _mean(group: Sequence[Trial]) -> float:
    return mean_sd(map(_accuracy, group))[0]
