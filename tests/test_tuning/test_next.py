"""What a sweep says of the next one: rare by chance, and a space that a sweep can search."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.storage.disk import LocalStorage
from tests.kit.report_data import BEGAN, history, keep, realistic_sweep
from tuning.cli import cli
from tuning.commands import sweep as sweep_command
from tuning.config import split
from tuning.records import FINISHED, REPEAT, STOPPED, Outcome, Plan, Sweep, Trial
from tuning.report.command import report
from tuning.space.advice import NEXT_SPACE_FILE, advice, command
from tuning.space.moves import Move, all_within, at_least, move_of
from tuning.space.search import RandomSearch
from tuning.space.space import SearchRange, Space, parse_space, read_space

RATE = SearchRange(field="learning_rate", low=0.001, high=0.1, log=True)
SIZES = SearchRange(field="batch_size", values=(16, 32, 64, 128, 256, 512))
BASE = {"model": "lenet5", "dataset": "mnist", "schedule": "constant"}


def swept(space: dict[str, Any], quality: Callable[[dict], float], **changed: Any) -> Sweep:
    """Sixteen finished trials drawn from a space; of each, the greater its quality the better."""
    search = RandomSearch(parse_space(space, "test"), BASE, seed=3)
    trials = []
    for number in range(16):
        drawn, settings = search.point(number)
        rows = history(quality(settings), 9)
        trials.append(
            Trial(
                plan=Plan(number=number, settings=settings, seed=1, drawn=drawn),
                outcome=Outcome(state=FINISHED, history=rows, started=BEGAN, seconds=200.0),
            )
        )
    sweep = realistic_sweep(ended=False, trials=tuple(trials), base=BASE)
    return dataclasses.replace(
        sweep, **{"space": parse_space(space, "test").to_document(), **changed}
    )


def rate_place(settings: dict) -> float:
    return RATE.place(settings["learning_rate"])


ONE_RATE = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


def test_a_report_writes_the_next_space_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = swept(ONE_RATE, rate_place)
    sweep = dataclasses.replace(sweep, trials=(*sweep.trials, *at_the_top(sweep)))
    keep(LocalStorage("runs/s"), sweep)
    assert report(["s"])[-1] == f"report-s/{NEXT_SPACE_FILE}"
    (way,) = read_space(f"report-s/{NEXT_SPACE_FILE}").parameters
    assert (way.field, way.log, way.high) == ("learning_rate", True, 1.0)
    page = Path("report-s/report.html").read_text()
    assert "all the best 6 trials lie in the highest tenth of 0.001 to 0.1" in page
    assert f"<span>--space report-s/{NEXT_SPACE_FILE}</span>" in page
    # Another report of it, when nothing follows any more, leaves no old one behind.
    keep(LocalStorage("runs/few"), dataclasses.replace(sweep, trials=sweep.trials[:7]))
    assert f"report-s/{NEXT_SPACE_FILE}" not in report(["few"], out="report-s")
    assert not Path(f"report-s/{NEXT_SPACE_FILE}").exists()


def at_the_top(sweep: Sweep) -> tuple[Trial, ...]:
    """Five more, in the highest tenth, which are the best."""
    rates = [0.0650, 0.0700, 0.0750, 0.0800, 0.0990]
    return tuple(
        Trial(
            plan=Plan(
                number=16 + i,
                settings={"learning_rate": rate},
                seed=1,
                drawn={"learning_rate": rate},
            ),
            outcome=Outcome(state=FINISHED, history=history(0.95 + i / 100, 9), started=BEGAN),
        )
        for i, rate in enumerate(rates)
    )


def test_the_best_in_the_middle_move_nothing_beyond():
    sweep = swept(ONE_RATE, lambda settings: 1 - abs(rate_place(settings) - 0.5))
    found = advice(sweep)
    for way in found.space.parameters if found.space else ():
        assert RATE.low <= way.low < way.high <= RATE.high
    assert not any("tenth" in finding for finding in found.findings)


def test_the_next_command_is_one_that_can_be_typed():
    sweep = swept(ONE_RATE, rate_place)
    sweep = dataclasses.replace(
        sweep,
        trials=(*sweep.trials, *at_the_top(sweep)),
        base={**BASE, "label_smoothing": 0.05, "xla": False, "deterministic": False},
    )
    words = shlex.split(command(sweep, advice(sweep), "a b/next-space.yaml"))
    assert words[:2] == ["lenet", "sweep"]
    # Below `lenet`, as it is called: what a command's help is named, it takes from there for good.
    parent = cli.make_context("lenet", words[1:])
    with sweep_command.make_context("sweep", words[2:], parent=parent) as context:
        given = {k: v for k, v in context.params.items() if v not in (None, False)}
    config, common, base = split(
        {k: v for k, v in given.items() if k not in ("as_json", "verbose", "overwrite")}
        | {"deterministic": context.params["deterministic"]}
    )
    assert config.space == "a b/next-space.yaml"
    assert (config.repeats, config.max_epochs, config.cpus_per_trial) == (2, 18, None)
    assert common.name == f"{sweep.name}-next"
    assert base == {**BASE, "label_smoothing": 0.05, "deterministic": False}


MOVES = {
    "the least of a list": (SIZES, [16, 16, 16, 32], (8, 16, 32, 64)),
    "the greatest": (SIZES, [512, 512, 256, 512], (128, 256, 512, 1024)),
    "a list by differences": (
        SearchRange(field="augment_shift", values=(0, 1, 2, 3, 4)),
        [4, 4, 4, 4],
        (3, 4, 5),
    ),
    "one of a list": (SIZES, [64, 64, 64, 64], (32, 64, 128)),
    "one of some names": (
        SearchRange(field="optimizer", values=("sgd", "momentum", "rmsprop", "adam")),
        ["adam"] * 4,
        ("adam",),
    ),
    "an upper edge": (RATE, [0.08, 0.07, 0.09, 0.07], (0.01, 1.0)),
    "a lower edge": (RATE, [0.0011, 0.0012, 0.001, 0.02], (0.0001, 0.1)),
    "close together": (RATE, [0.01, 0.011, 0.0105, 0.012], (0.0063, 0.019)),
    "whole numbers": (
        SearchRange(field="batch_size", low=16, high=512),
        [500, 510, 505, 512],
        (264, 760),
    ),
}


@pytest.mark.parametrize(("way", "best", "expected"), MOVES.values(), ids=MOVES)
def test_where_the_best_lie_says_where_to_search(way, best, expected):
    move = move_of(way, best, is_grid=False)
    assert (move.way.values or (move.way.low, move.way.high)) == pytest.approx(expected)
    assert move.says.endswith(".")
    parse_space(Space(parameters=(move.way,)).to_document(), "next")


STAYS = {
    "a list's two values": (SearchRange(field="optimizer", values=("sgd", "adam")), ["adam"] * 4),
    "a list of three": (SearchRange(field="batch_size", values=(16, 32, 64)), [16, 16, 32]),
    "spread": (RATE, [0.002, 0.01, 0.05, 0.02]),
    "two at an edge": (RATE, [0.08, 0.09, 0.02, 0.005]),
    "one value": (SearchRange(field="batch_size", values=(16,)), [16] * 9),
}


@pytest.mark.parametrize(("way", "best"), STAYS.values(), ids=STAYS)
def test_what_chance_would_do_is_not_said(way, best):
    assert move_of(way, best, is_grid=False) is None


def test_on_a_grid_an_edge_is_as_likely_as_its_points():
    """Of three points, a third of all trials have the highest: three of four come by chance."""
    best = [0.1, 0.1, 0.1, 0.01]
    assert move_of(RATE, best, is_grid=False).way.high > RATE.high
    assert move_of(RATE, best, is_grid=True) is None
    assert move_of(RATE, [0.1] * 4, is_grid=True).way.high > RATE.high


LIMITS = {
    "none beyond": (SearchRange(field="label_smoothing", low=0.0, high=0.3), [0.0] * 4, None),
    "a part": (
        SearchRange(field="augment_scale", low=0.0, high=0.4),
        [0.39, 0.4, 0.4, 0.38],
        (0.2, 0.5),
    ),
    "the list ends": (
        SearchRange(field="label_smoothing", values=(0.0, 0.05, 0.1, 0.2)),
        [0.0] * 4,
        None,
    ),
}


@pytest.mark.parametrize(("way", "best", "expected"), LIMITS.values(), ids=LIMITS)
def test_a_setting_is_not_moved_beyond_what_it_takes(way, best, expected):
    move = move_of(way, best, is_grid=False)
    if expected is None:
        assert move == Move(says=move.says, way=way)
        assert move.says.endswith("takes nothing beyond.")
    else:
        assert (move.way.low, move.way.high) == pytest.approx(expected)


def test_chance_is_what_drawing_shows():
    draws = np.random.default_rng(5).random((200_000, 4))
    assert at_least(3, 4, 0.1) == pytest.approx(0.0037)
    assert np.mean((draws < 0.3).sum(axis=1) >= 3) == pytest.approx(at_least(3, 4, 0.3), abs=0.003)
    spread = draws.max(axis=1) - draws.min(axis=1)
    assert np.mean(spread <= 0.3) == pytest.approx(all_within(0.3, 4), abs=0.003)


def test_of_what_matters_nothing_little_is_said():
    """In a hundred sweeps of noise, about one in ten at most has a finding of a setting."""
    rng = np.random.default_rng(7)
    said = 0
    for _ in range(100):
        best = [RATE.at(unit) for unit in rng.random(4)]
        said += move_of(RATE, best, is_grid=False) is not None
    assert said <= 10


def test_what_hangs_on_a_choice_that_goes_goes_with_it():
    space = {
        "optimizer": {"values": ["sgd", "momentum", "rmsprop", "adam"]},
        "learning_rate": [
            {"when": {"optimizer": ["sgd", "momentum"]}, "low": 0.01, "high": 0.3, "log": True},
            {"when": {"optimizer": "rmsprop"}, "low": 1e-4, "high": 1e-3, "log": True},
            {"when": {"optimizer": "adam"}, "low": 3e-4, "high": 1e-2, "log": True},
        ],
    }
    sweep = swept(space, lambda settings: 0.9 if settings["optimizer"] == "adam" else 0.3)
    assert [t.plan.settings["optimizer"] for t in sweep.trials].count("adam") >= 4
    found = advice(sweep).space
    optimizer, *rates = found.parameters
    assert optimizer.values == ("adam",)
    assert [way.when for way in rates] == [{"optimizer": ("adam",)}]
    assert parse_space(found.to_document(), "next") == found


def test_with_few_trials_nothing_is_said_of_the_space():
    sweep = swept(ONE_RATE, rate_place)
    found = advice(dataclasses.replace(sweep, trials=sweep.trials[:7]))
    assert found.findings == (
        "Too few trials ended with an epoch to say where to search: 7, of 8 that are needed.",
    )
    assert found.space is found.epochs is None
    assert command(sweep, found, "x.yaml") == ""


@pytest.mark.parametrize(
    ("schedule", "last_is_best", "epochs"),
    [("constant", True, 18), ("constant", False, None), ("warmup-cosine", True, None)],
)
def test_more_epochs_are_tried_where_the_loss_still_falls(schedule, last_is_best, epochs):
    sweep = swept(ONE_RATE, lambda settings: 0.5, base={**BASE, "schedule": schedule})
    losses = [1 / epoch for epoch in range(1, 10)]
    if not last_is_best:
        losses[-1] = 0.5
    trials = tuple(with_losses(trial, losses) for trial in sweep.trials)
    found = advice(dataclasses.replace(sweep, trials=trials))
    assert found.epochs == epochs
    said = [finding for finding in found.findings if finding.startswith("Epochs")]
    assert len(said) == last_is_best
    if schedule != "constant":
        assert "only trials with more epochs" in said[0]


def with_losses(trial: Trial, losses: list[float]) -> Trial:
    rows = zip(trial.outcome.history, losses, strict=True)
    history = tuple(dataclasses.replace(row, val_loss=loss) for row, loss in rows)
    return dataclasses.replace(trial, outcome=dataclasses.replace(trial.outcome, history=history))


def repeated(sweep: Sweep, number: int, accuracies: list[float]) -> list[Trial]:
    """A trial and its repeats with these accuracies."""
    trial = sweep.trials[number]
    found = []
    for i, accuracy in enumerate(accuracies):
        rows = tuple(dataclasses.replace(r, val_accuracy=accuracy) for r in trial.outcome.history)
        plan = dataclasses.replace(trial.plan, seed=1 + i)
        if i:
            plan = dataclasses.replace(
                plan, kind=REPEAT, number=100 + 10 * number + i, repeats=number
            )
        found.append(Trial(plan=plan, outcome=dataclasses.replace(trial.outcome, history=rows)))
    return found


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ([0.9905, 0.9897, 0.9901], "enough to explain it"),
        ([0.9855, 0.9847, 0.9851], "too little to explain it"),
    ],
)
def test_seeds_say_whether_the_best_two_differ(second, said):
    sweep = swept(ONE_RATE, lambda settings: 0.5)
    first = repeated(sweep, 0, [0.9906, 0.9898, 0.9902])
    trials = (*first[:1], *repeated(sweep, 1, second)[:1], *sweep.trials[2:])
    trials += (*first[1:], *repeated(sweep, 1, second)[1:])
    finding = advice(dataclasses.replace(sweep, trials=trials)).findings[-1]
    assert finding.startswith("Seeds: trials 0 and 1")
    assert said in finding
    assert "0.04 (standard deviation; 6 runs of 2 settings)" in finding


def test_without_repeats_nobody_knows_what_seeds_do():
    assert "--repeats" in advice(swept(ONE_RATE, rate_place)).findings[-1]


def test_trials_that_were_stopped_count_with_what_they_reached():
    sweep = swept(ONE_RATE, lambda settings: 0.9 if rate_place(settings) > 0.8 else 0.1)
    stopped = tuple(
        dataclasses.replace(t, outcome=dataclasses.replace(t.outcome, state=STOPPED))
        for t in sweep.trials
    )
    found = advice(dataclasses.replace(sweep, trials=stopped))
    assert (found.compared, found.finished, len(found.best)) == (16, 0, math.ceil(16 / 4))
