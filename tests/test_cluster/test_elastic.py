"""A run that keeps its curve while nodes come and go."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.nodes import Nodes

COMMON = ["--seed", "5", "--checkpoint-every", "20", "--cpus-per-worker", "1"]
SETTINGS = [
    *("--limit-train", "12000", "--batch-size", "60", "--epochs", "4", "--learning-rate", "0.02"),
    *COMMON,
]
# Half a minute on the fastest processor so far: Ray Train looks for more nodes every 5 s.
LONGER = [
    *("--limit-train", "48000", "--batch-size", "120", "--epochs", "6", "--learning-rate", "0.005"),
    *COMMON,
]


@pytest.fixture(scope="module")
def alone(lenet, tmp_path_factory, mnist) -> Callable[[list[str]], Path]:
    """The same run, undisturbed and in one process."""

    def run(settings: list[str]) -> Path:
        folder = tmp_path_factory.mktemp("alone")
        done = lenet("train", *settings, "--name", "r", cwd=folder)
        assert done.returncode == 0, done.stderr
        return folder / "runs/r"

    return run


def expect_same_curve(run: Path, alone: Path) -> None:
    """Sums in another order differ by 1e-8 at first; 800 steps make up to 2e-4 of it (measured),
    and two of 12,000 examples fall on the other side."""
    for one, many in zip(rows(alone), rows(run), strict=True):
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert many["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)
        assert many["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=5.01 / 12_000)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


@pytest.mark.long
def test_goes_on_with_the_workers_that_are_left(alone, tmp_path):
    with Nodes(tmp_path, 3) as nodes:
        driver = nodes.start("r", *SETTINGS, "--workers", "2:3")
        nodes.reach(driver, "r", 70)
        nodes.lose()
        result = nodes.result(driver, "r")
    assert result["workers"] == 2
    assert result["restarts"] == 1
    assert result["lost_steps"] <= 20
    expect_same_curve(tmp_path / "runs/r", alone(SETTINGS))


@pytest.mark.long
def test_grows_when_a_node_joins_and_leaves_one_that_goes_without_losing_a_step(alone, tmp_path):
    with Nodes(tmp_path, 1) as nodes:
        driver = nodes.start("r", *LONGER, "--workers", "1:2")
        nodes.reach(driver, "r", 30)
        nodes.add()
        assert nodes.wait(driver, lambda: nodes.notes("r")["restarts"] == 1)
        grown = nodes.notes("r")
        nodes.reach(driver, "r", grown["step"] + 1)
        # The first worker's node, which also writes the checkpoint.
        nodes.drain(0, seconds=12)
        assert nodes.wait(driver, lambda: nodes.notes("r")["restarts"] == 2)
        nodes.lose(0)
        result = nodes.result(driver, "r")
        log = nodes.log("r")
    assert "left a machine that is being taken away" in log
    assert grown["lost_steps"] <= 20
    assert result["lost_steps"] == grown["lost_steps"]
    assert result["restarts"] == 2
    assert result["workers"] == 1
    expect_same_curve(tmp_path / "runs/r", alone(LONGER))
