"""Training further: a run that begins with the weights of another, or of a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import numpy as np  # noqa: E402

from job.errors import InputError, JobError  # noqa: E402
from job.runs.run import open_run, prepare_run, verified_best  # noqa: E402
from job.runs.start import begun_with  # noqa: E402
from job.train import train_and_evaluate, training_session  # noqa: E402
from job.training.progress import Silent  # noqa: E402
from tests.kit.commands import tree  # noqa: E402

DIGITS = Path(__file__).parent / "kept" / "digits"
SETTINGS: dict[str, Any] = {
    **{"dataset": "own", "data": str(DIGITS), "epochs": 1, "batch_size": 25, "model": "lenet5"},
    "limit_train": 100,
}


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def train(folder: Path, name: str, **more: Any) -> tuple[dict, str]:
    run = prepare_run({**SETTINGS, "storage": str(folder), "name": name, **more})
    notes = Notes()
    with training_session(run, notes) as (run, examples):
        result = train_and_evaluate(run, examples, notes)
    assert result is not None
    return result, "\n".join(notes.said)


def best(folder: Path, name: str) -> dict[str, np.ndarray]:
    return dict(verified_best(open_run(name, str(folder))).best_weights)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The storage of a finished run `first`."""
    folder = tmp_path_factory.mktemp("first")
    train(folder, "first")
    return folder


def test_a_run_begins_where_another_ended(first):
    """What did not learn keeps what it was given: at a rate of nearly nothing, all of it."""
    result, said = train(first, "second", start_from="first", learning_rate=1e-9, weight_decay=0)
    assert "began with 10 of 10 arrays as given" in said
    before, after = best(first, "first"), best(first, "second")
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_allclose(after[path], array, atol=1e-6)
    one, _ = train(first, "a", start_from="first")
    other, _ = train(first, "b", start_from="first")
    assert one["weights_sha256"] == other["weights_sha256"] != result["weights_sha256"]


def test_frozen_arrays_stay_and_the_others_learn(first):
    _, said = train(first, "frozen", start_from="first", freeze="*/CONV*")
    assert "froze lenet5/CONV1/kernel, lenet5/CONV1/bias" in said
    before, after = best(first, "first"), best(first, "frozen")
    equal = {path for path in before if np.array_equal(before[path], after[path])}
    assert equal == {path for path in before if "/CONV" in path}


def test_a_file_of_keras_serves_as_well(first, tmp_path):
    file = shutil.copy(first / "first" / "model.keras", tmp_path / "pretrained.keras")
    ours, _ = train(first, "of-run", start_from="first")
    theirs, said = train(first, "of-file", start_from=str(file))
    assert "began with 10 of 10" in said
    assert theirs["weights_sha256"] == ours["weights_sha256"]


def test_what_it_began_with_goes_with_the_run(first, tmp_path):
    """The other run may be gone when this one is interrupted before its first checkpoint."""
    shutil.copytree(first / "first", tmp_path / "first")
    expected, _ = train(tmp_path, "whole", start_from="first")
    run = prepare_run({**SETTINGS, "storage": str(tmp_path), "name": "r", "start_from": "first"})
    with training_session(run, Silent()):
        pass
    shutil.rmtree(tmp_path / "first")
    resumed, said = train(tmp_path, "r")
    assert "began with 10 of 10" in said
    assert resumed["weights_sha256"] == expected["weights_sha256"]
    shutil.copytree(tmp_path / "r", tmp_path / "spoilt")
    file = tmp_path / "spoilt" / "start.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(JobError, match="is not what this run was started with"):
        open_run("spoilt", str(tmp_path)).start()


def test_an_array_of_another_shape_is_fresh():
    fresh = {"a/kernel": np.zeros((3, 4), np.float32), "last/kernel": np.zeros((4, 7), np.float32)}
    given = {"a/kernel": np.ones((3, 4)), "last/kernel": np.ones((4, 10)), "other": np.ones(3)}
    arrays, said = begun_with(fresh, given)
    assert arrays["a/kernel"].dtype == np.float32
    assert arrays["a/kernel"].all()
    assert not arrays["last/kernel"].any()
    assert said == "began with 1 of 2 arrays as given; fresh: last/kernel"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"start_from": "nowhere"}, "no run in"),
        ({"start_from": "first", "model": "ffnn"}, "none of its arrays .* has the name and shape"),
        ({"start_from": "nowhere.keras"}, "can't be read"),
        ({"freeze": "nothing*"}, "matches none of the arrays that are trained"),
        ({"freeze": "*"}, "matches all of the arrays that are trained"),
    ],
)
def test_what_cannot_be_begun_with_is_one_line_and_writes_nothing(given, why, first):
    before = tree(first)
    with pytest.raises(InputError, match=why) as refused:
        train(first, "bad", **given)
    assert "\n" not in str(refused.value)
    assert tree(first).keys() == before.keys()
