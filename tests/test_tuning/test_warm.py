"""A process that trains one run after another: none of them sees that there was another before."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.config import FIELDS, is_fixed
from job.data.examples import open_examples
from job.errors import InputError
from job.runs.run import Run, open_run, prepare_run
from job.runs.state import sha256_of
from job.train import train_and_evaluate, training_session
from job.training.attempt import TrainingProcess, Worker
from job.training.building import architecture_of
from job.training.progress import Silent
from tuning.trials.warm import WarmProcess

DIGITS = str(Path(__file__).parents[1] / "test_runs" / "kept" / "digits")
THREADS = len(os.sched_getaffinity(0))
FIRST: dict[str, Any] = {
    **{"model": "ffnn", "dataset": "own", "data": DIGITS, "limit_train": 96, "epochs": 2},
    **{"batch_size": 32, "learning_rate": 0.01, "augment_shift": 1},
}
# Another value of each setting that decides the result; all trials of a sweep have one data set.
SECOND: dict[str, Any] = {
    **{"model": "lenet5", "recipe": "notebook", "epochs": 3, "batch_size": 24},
    **{"optimizer": "momentum", "learning_rate": 0.02, "schedule": "constant"},
    **{"weight_decay": 0.01, "label_smoothing": 0.1, "augment_shift": 2},
    **{"augment_flip": "horizontal", "precision": "mixed_bfloat16", "seed": 2},
    **{"augment_rotate": 10.0, "augment_scale": 0.1, "augment_elastic": 1.0},
    **{
        "limit_train": 64,
        "patience": 1,
        "best_by": "accuracy",
        "deterministic": False,
        "xla": True,
    },
    "freeze": "*/bias",
}
# What says which model of the user's own it is: the last test. No sweep begins with weights.
OWN = {
    *("output", "model_sha256", "architecture_sha256", "start_from", "start_sha256"),
    *("image_size", "validation"),
}
# Those say something else of the same training: processors are deterministic, two epochs are too
# few to lose patience, and which of them was the best changes nothing in what comes next.
SAME = ("deterministic", "patience", "best_by")

NET = """
from keras import Input, Sequential, layers

def net(image_shape, classes):
    return Sequential(
        [Input(image_shape), layers.Flatten(), layers.Dense({}), layers.Dense(classes)]
    )
"""

Train = Callable[[WarmProcess, dict[str, Any]], str]


def warm() -> WarmProcess:
    return WarmProcess(THREADS, 0.0, open_examples("own", DIGITS).dataset)


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Train:
    """Trains a run in a `WarmProcess`; gives SHA-256 of its weights."""
    storage = str(tmp_path_factory.mktemp("runs"))

    def trained(process: WarmProcess, settings: dict[str, Any]) -> str:
        run = prepare_run({**settings, "storage": storage, "name": secrets.token_hex(8)})
        *_, last = process.train(run)
        assert last.is_last
        return sha256_of(run.launched("cpu").restore().weights.values())

    return trained


@pytest.fixture(scope="module")
def used(train) -> tuple[WarmProcess, str]:
    """A process in which the first run was trained, and what came of it."""
    process = warm()
    return process, train(process, FIRST)


def test_all_that_decides_is_looked_at():
    assert SECOND.keys() | OWN == {name for name in FIELDS if is_fixed(name)} - {"dataset"}


@pytest.mark.parametrize("field", SECOND)
def test_a_run_after_another_is_that_run_alone(field, used, train):
    process, first = used
    settings = {**FIRST, field: SECOND[field]}
    after = train(process, settings)
    assert after == train(warm(), settings)
    assert (after == first) == (field in SAME)


def test_the_first_run_again_is_the_first_run(used, train):
    process, first = used
    assert train(process, FIRST) == first


def left(run: Run) -> set[str]:
    """What a run left, without what tells one attempt from another."""
    return {re.sub(r"-[0-9a-f]{8}/|tfevents\.\d+", "", path) for path in run.storage.files()}


def test_a_winner_leaves_what_a_run_alone_leaves(used, tmp_path):
    process, _ = used
    alone, winner = (
        prepare_run({**FIRST, "storage": str(tmp_path), "name": name}) for name in ("a", "w")
    )
    *_, _ = process.train(winner)
    begun = open_run("w", str(tmp_path))
    assert "result.json" not in begun.storage.files()
    won = process.evaluate(begun, process.hardware)
    with training_session(alone, Silent(), threads=THREADS) as (alone, examples):
        mine = TrainingProcess(Worker(threads=THREADS, gpus=0.0))
        result = train_and_evaluate(alone, examples, Silent(), process=mine)
    assert won.keys() == result.keys()
    measured = {"name", "train_seconds", "test_seconds", "images_per_second"}
    assert {k: v for k, v in won.items() if k not in measured} == {
        k: v for k, v in result.items() if k not in measured
    }
    assert left(winner) == left(alone) >= {"figures/first_ten.png", "figures/in_detail.png"}
    for name in ("first_ten", "in_detail", "confusion"):
        pictures = [run.storage.read(f"figures/{name}.png", limit=10**7) for run in (winner, alone)]
        assert pictures[0] == pictures[1]


def test_a_run_of_other_data_is_refused(used, train, mnist):
    with pytest.raises(InputError, match="is not the data set that the sweep was started with"):
        train(used[0], {**FIRST, "dataset": "mnist", "data": None})


def test_models_of_the_users_own_are_told_apart(tmp_path):
    """Two of one name: the architecture is among what a compiled function is known by."""
    process, dataset = warm(), open_examples("own", DIGITS).dataset
    shas = {}
    for text in ("8, 'relu'", "8, 'tanh'"):
        file = tmp_path / "net.py"
        file.write_text(NET.format(text))
        given = {**FIRST, "model": f"{file}:net", "storage": str(tmp_path), "limit_train": 48}
        for name, trains in (("after", process), ("alone", warm())):
            run = prepare_run({**given, "name": f"{name}-{len(shas)}"})
            assert run.source is not None
            run = run.with_architecture(architecture_of(run.source, run.config, dataset))
            *_, last = trains.train(run)
            assert last.is_last
            ended = open_run(run.name, str(tmp_path)).restore()
            shas[text, name] = sha256_of(ended.weights.values())
        assert shas[text, "after"] == shas[text, "alone"]
    assert len(set(shas.values())) == 2
