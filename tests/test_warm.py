"""A process that trains one run after another: none of them sees that there was another before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.config import FIELDS, is_fixed
from job.data.examples import open_examples
from job.errors import InputError
from job.runs.run import prepare_run
from job.runs.state import sha256_of
from tuning.trials.warm import Warm

DIGITS = str(Path(__file__).with_name("kept") / "digits")
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
    **{"limit_train": 64, "patience": 1, "deterministic": False, "xla": True},
}
# Those say something else of the same training: processors are deterministic, and two epochs are
# too few to lose patience.
SAME = ("deterministic", "patience")

Train = Callable[[Warm, dict[str, Any]], str]


def warm() -> Warm:
    return Warm(THREADS, 0.0, open_examples("own", DIGITS).dataset)


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Train:
    """Trains a run in a process' `Warm`; gives SHA-256 of its weights."""
    storage = str(tmp_path_factory.mktemp("runs"))

    def trained(process: Warm, settings: dict[str, Any]) -> str:
        run = prepare_run({**settings, "storage": storage, "name": secrets.token_hex(8)})
        *_, last = process.train(run)
        assert last.is_last
        return sha256_of(run.launched("cpu").restore().weights.values())

    return trained


@pytest.fixture(scope="module")
def used(train) -> tuple[Warm, str]:
    """A process in which the first run was trained, and what came of it."""
    process = warm()
    return process, train(process, FIRST)


def test_all_that_decides_is_looked_at():
    assert SECOND.keys() == {name for name in FIELDS if is_fixed(name)} - {"dataset"}


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


def test_a_run_of_other_data_is_refused(used, train, mnist):
    with pytest.raises(InputError, match="is not the data set that the sweep was started with"):
        train(used[0], {**FIRST, "dataset": "mnist", "data": None})
