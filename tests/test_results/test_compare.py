"""`lenet compare`: groups by seed, intervals, McNemar's test, and what does not compare."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from job.compare.compare import compare
from job.errors import InputError, JobError
from job.results.predictions import Predictions, read_predictions, write_predictions
from job.storage.disk import LocalStorage
from tests.kit.commands import result_of

FILE = "test_predictions.parquet"
Make = Callable[..., None]


@pytest.fixture
def make(finished_run, tmp_path) -> Make:
    """Makes finished runs below runs/, each the real one with another seed, model or answers."""
    labels = read_predictions(LocalStorage(finished_run)).labels

    def run(name: str, *, wrong: Sequence[int], val_accuracy: float = 0.9, **settings) -> None:
        folder = Path(shutil.copytree(finished_run, tmp_path / "runs" / name))
        config = json.loads((folder / "config.json").read_text())
        config["config"].update(settings)
        (folder / "config.json").write_text(json.dumps(config))
        predicted = labels.copy()
        predicted[list(wrong)] = (labels[list(wrong)] + 1) % 10
        accuracy = float((predicted == labels).mean())
        result = {**result_of(folder), "test_accuracy": accuracy, "val_accuracy": val_accuracy}
        (folder / "result.json").write_text(json.dumps(result))
        write_predictions(LocalStorage(folder), Predictions(labels, predicted))

    return run


def compared(tmp_path: Path, *names: str) -> dict:
    return compare(names, str(tmp_path / "runs"))


def test_a_finished_run_leaves_its_answers(finished_run, splits):
    found = read_predictions(LocalStorage(finished_run))
    assert np.array_equal(found.labels, splits[2].labels)
    assert found.accuracy == result_of(finished_run)["test_accuracy"]
    assert (finished_run / FILE).stat().st_size < 20_000


def test_runs_that_differ_by_seed_are_one_model(make, tmp_path):
    make("a", seed=1, wrong=range(100))
    make("b", seed=2, wrong=range(200), recipe="notebook")
    make("c", seed=3, wrong=range(300))
    make("other", seed=1, wrong=range(50), learning_rate=0.07)
    mine, other = compared(tmp_path, "c", "a", "other", "b")["groups"]
    assert (mine["title"], other["title"]) == (
        "lenet5, learning rate 0.05",
        "lenet5, learning rate 0.07",
    )
    assert (mine["runs"], mine["seeds"], mine["n"]) == (["a", "b", "c"], [1, 2, 3], 3)
    assert mine["test_accuracy"] == [0.99, 0.98, 0.97]
    assert (mine["mean"], mine["sd"]) == (pytest.approx(0.98), pytest.approx(0.01))
    reach = 4.3027 * 0.01 / 3**0.5
    assert mine["interval"] == pytest.approx([0.98 - reach, 1.0], abs=1e-6)
    assert (mine["interval_of"], other["interval_of"]) == ("seeds", "examples")
    assert other["sd"] is None
    assert other["interval"] == pytest.approx([0.9934, 0.9963], abs=1e-4)


def test_two_runs_are_tested_on_each_other(make, tmp_path):
    make("a", seed=1, wrong=[1, 2, 3])
    make("b", seed=2, wrong=[3, *range(100, 109)])
    (test,) = compared(tmp_path, "a", "b")["tests"]
    assert (test["first"], test["second"]) == ("a", "b")
    assert (test["only_first_right"], test["only_second_right"]) == (9, 2)
    # Eleven coins of which at most two fall on their rarer side.
    assert test["p_value"] == test["p_holm"] == pytest.approx(2 * (1 + 11 + 55) / 2**11)


def test_of_several_seeds_the_validation_examples_pick_the_one_that_is_tested(make, tmp_path):
    make("a1", seed=1, wrong=range(5), val_accuracy=0.90)
    make("a2", seed=2, wrong=range(50), val_accuracy=0.95)
    make("b", seed=1, wrong=[], model="ffnn")
    make("c", seed=1, wrong=range(50, 90), model="ffnn", epochs=9)
    document = compared(tmp_path, "a1", "a2", "b", "c")
    pairs = [(test["first"], test["second"]) for test in document["tests"]]
    assert pairs == [("a2", "b"), ("a2", "c"), ("b", "c")]
    p_values = [test["p_value"] for test in document["tests"]]
    assert p_values[0] == 2 * 0.5**50
    assert document["tests"][1]["p_holm"] == p_values[1]
    assert document["tests"][0]["p_holm"] == 3 * p_values[0]


def test_on_the_terminal(make, tmp_path, lenet):
    make("a", seed=1, wrong=range(100))
    make("b", seed=2, wrong=range(200))
    done = lenet("compare", "a", "b", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "98.50 ± 0.71 %" in done.stdout
    assert "< 0.0001" in done.stdout
    done = lenet("compare", "a", "runs/b", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["tests"][0]["second"] == "runs/b"


def other_data(run: Path) -> None:
    document = json.loads((run / "data.json").read_text())
    document["name"] = "letters"
    document["files"][2]["sha256"] = "0" * 64
    (run / "data.json").write_text(json.dumps(document))


REFUSED = {
    "one alone": (["a"], None, "name two runs or more"),
    "none of that name": (["a", "nothing"], None, "no run in runs/nothing"),
    "no name": (["a", "../b"], None, "no run in ../b"),
    "twice": (["a", "runs/a"], None, "is named twice"),
    "unfinished": (["a", "b"], lambda b: (b / "result.json").unlink(), "has not finished"),
    "other data": (["a", "b"], other_data, "was trained on letters, but a on mnist"),
    "earlier version": (["a", "b"], lambda b: (b / FILE).unlink(), "train it again"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, make, tmp_path, lenet):
    names, change, why = REFUSED[case]
    make("a", wrong=[])
    make("b", wrong=[1])
    if change:
        change(tmp_path / "runs/b")
    done = lenet("compare", *names, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "RUN" in done.stderr
    assert why in done.stderr


def table(**columns: Sequence[int | None]) -> bytes:
    stream = io.BytesIO()
    arrays = {name: pa.array(values, pa.uint8()) for name, values in columns.items()}
    pyarrow.parquet.write_table(pa.table(arrays), stream)
    return stream.getvalue()


HOSTILE = {
    "empty": b"",
    "text": b"label,predicted\n1,1\n",
    "cut off": table(label=[1, 2], predicted=[1, 2])[:-9],
    "other columns": table(label=[1], answer=[1]),
    "no rows": table(label=[], predicted=[]),
    "empty cells": table(label=[1, 2], predicted=[1, None]),
    "other answers": table(label=[1, 2], predicted=[1, 1]),
    "too large": b"PAR1" * 2_000_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_answers_that_are_none(case, make, tmp_path):
    make("a", wrong=[])
    make("b", wrong=[1])
    (tmp_path / "runs/b" / FILE).write_bytes(HOSTILE[case])
    with pytest.raises(JobError, match=rf"runs/b/{FILE} can't be trusted") as error:
        compared(tmp_path, "a", "b")
    assert not isinstance(error.value, InputError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 1.5, -0.1, "much", float("nan")])
def test_a_result_that_is_none(value, make, tmp_path):
    make("a", wrong=[])
    make("b", wrong=[1])
    path = tmp_path / "runs/b/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "val_accuracy": value}))
    with pytest.raises(JobError, match=r"result.json can't be trusted"):
        compared(tmp_path, "a", "b")
