"""Runs as trackers have them, in real stores of their own on this machine."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from job.config.resolve import over_recipe
from job.errors import StopRequestedError
from job.results.events import Point
from job.runs.run import prepare_run
from job.storage.disk import LocalStorage
from job.trackers import teller
from job.trackers.base import FINISHED, STOPPED, Beginning
from job.trackers.teller import Teller, Told
from tests.kit.commands import result_of
from tests.kit.nodes import called
from tuning.records import read_sweep

# 47 steps in each epoch, and a word after ten of them at the latest.
SETTINGS = {"model": "ffnn", "limit_train": 1500, "epochs": 3, "batch_size": 32, "seed": 3}
SETTINGS |= {"checkpoint_every": "10"}
SPANS = ("loss", "accuracy", "images_per_second", "learning_rate")


class Here(NamedTuple):
    """A folder in which trackers keep what they are told, and what they need to."""

    folder: Path
    environment: dict[str, str]

    @property
    def mlflow(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(self.environment["MLFLOW_TRACKING_URI"])

    def runs(self) -> dict[str, Any]:
        """MLflow's, by name; a name that occurs twice is an error."""
        experiments = [one.experiment_id for one in self.mlflow.search_experiments()]
        runs = [*self.mlflow.search_runs(experiments)]
        found = {run.info.run_name: run for run in runs}
        assert len(found) == len(runs)
        return found

    def trackio(self, question: str) -> list[tuple]:
        with sqlite3.connect(self.folder / "trackio" / "lenet-on-ray.db") as database:
            return database.execute(question).fetchall()


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("trackers")
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_DIR": str(folder),
        "WANDB_MODE": "offline",
        # Nobody is asked who this is.
        "HF_HUB_OFFLINE": "1",
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for name, value in environment.items():
            patched.setenv(name, value)
        yield Here(folder, environment)


def train(folder: Path, trackers: str, stop_after: int = 10**6, **more: Any) -> dict[str, Any]:
    """A run in this process, which a signal stops after so many spans of steps."""
    from cluster.training import train_run
    from job.training.progress import Silent

    asked = 0

    def stop_requested() -> int:
        nonlocal asked
        asked += 1
        return signal.SIGINT if asked > stop_after else 0

    given = {**SETTINGS, "storage": str(folder), "name": "r", "tracker": trackers, **more}
    return train_run(prepare_run(given), Silent(), stop_requested)


@pytest.fixture(scope="module")
def resumed(here) -> Path:
    """A run of three epochs that was stopped, and goes on without being told its trackers again."""
    with pytest.raises(StopRequestedError):
        train(here.folder / "runs", "mlflow, wandb,trackio,tensorboard", stop_after=9)
    states = {run.info.status for run in here.runs().values()}
    assert states == {"KILLED"}
    train(here.folder / "runs", "mlflow,wandb,trackio,tensorboard")
    return here.folder / "runs" / "r"


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open() as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def identity(run: Path, tracker: str) -> str:
    return json.loads((run / "trackers" / f"{tracker}.json").read_text())["id"]


def test_mlflow_has_one_run_of_it(here, resumed):
    (run,) = here.runs().values()
    assert run.info.run_id == identity(resumed, "mlflow")
    assert (run.info.run_name, run.info.status) == ("r", "FINISHED")
    told = {"model": "ffnn", "batch_size": "32", "optimizer": "adam", "seed": "3", "workers": "1"}
    assert told.items() <= run.data.params.items()
    result = result_of(resumed)
    assert run.data.metrics["test_accuracy"] == result["test_accuracy"]
    assert run.data.metrics["best_val_accuracy"] == result["val_accuracy"]
    rows = history(resumed)
    for name in ("val_loss", "val_accuracy"):
        points = here.mlflow.get_metric_history(run.info.run_id, name)
        assert [(p.step, p.value) for p in points] == [
            (47 * row["epoch"], pytest.approx(row[name])) for row in rows
        ]
    for name in SPANS:
        points = here.mlflow.get_metric_history(run.info.run_id, name)
        steps = [p.step for p in points]
        # Where it was resumed, nothing is told twice, and nothing is missing.
        assert len(steps) > len(rows)
        assert steps == sorted(set(steps))
        assert {47, 94, 141} <= set(steps)
    kept = {file.path for file in here.mlflow.list_artifacts(run.info.run_id)}
    assert kept >= {"config.json", "result.json", "model.keras", "README.md", "figures"}


def test_trackio_has_one_run_of_it(here, resumed):
    (found,) = here.trackio("select distinct run_id, run_name from metrics")
    assert found == (identity(resumed, "trackio"), "r")
    points = [
        (step, json.loads(values))
        for step, values in here.trackio("select step, metrics from metrics order by id")
    ]
    told = [(step, values["val_loss"]) for step, values in points if "val_loss" in values]
    rows = history(resumed)
    assert told == [(47 * row["epoch"], pytest.approx(row["val_loss"])) for row in rows]
    steps = [step for step, values in points if set(SPANS) <= values.keys()]
    assert steps == sorted(set(steps))
    assert points[-1][1]["test_accuracy"] == result_of(resumed)["test_accuracy"]
    ((config,),) = here.trackio("select config from configs")
    assert json.loads(config)["batch_size"] == 32
    (artifact,) = here.trackio("select manifest from artifact_versions")
    assert "model.keras" in artifact[0]


def test_wandb_has_one_run_of_it(here, resumed):
    """Offline, each attempt is a folder of its own: `wandb sync` brings them together."""
    folders = [path for path in (here.folder / "wandb").glob("offline-run-*") if path.is_dir()]
    assert len(folders) == 2
    name = identity(resumed, "wandb")
    written = [(folder / f"run-{name}.wandb").read_bytes() for folder in folders]
    assert all(b"val_accuracy" in content for content in written)
    assert any(b"test_accuracy" in content for content in written)


def test_tensorboard_has_its_steps(resumed):
    import tensorflow as tf

    found: dict[str, list[int]] = {}
    for file in sorted((resumed / "tensorboard" / "steps").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    assert found.keys() >= {*SPANS, "val_loss", "val_accuracy"}
    for name in SPANS:
        assert found[name] == sorted(set(found[name]))
        assert {47, 94, 141} <= set(found[name])


def test_a_tracker_that_comes_later_is_told_of_the_epochs_before(here, tmp_path):
    with pytest.raises(StopRequestedError):
        train(tmp_path, "none", stop_after=12, name="later")
    before = len(prepare_run({"name": "later", "storage": str(tmp_path)}).history())
    assert 0 < before < 3
    train(tmp_path, "mlflow", name="later")
    run = here.runs()["later"]
    points = here.mlflow.get_metric_history(run.info.run_id, "val_loss")
    assert [p.step for p in points] == [47, 94, 141]
    assert all(one.timestamp <= other.timestamp for one, other in itertools.pairwise(points))


def test_a_server_that_is_away_is_one_warning(here, tmp_path, monkeypatch, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(teller, "RETRY_SECONDS", 0.1)
    with caplog.at_level(logging.WARNING):
        result = train(tmp_path, "mlflow,tensorboard", epochs=1)
    (warning,) = [r.getMessage() for r in caplog.records if "--tracker" in r.getMessage()]
    assert warning.startswith("--tracker mlflow: MlflowException: ")
    assert "training goes on" in warning
    assert result_of(tmp_path / "r") == result
    # The other one is told.
    assert list((tmp_path / "r" / "tensorboard" / "steps").iterdir())


def until(condition: Callable[[], bool]) -> None:
    """As long as a test may take."""
    while not condition():
        time.sleep(0.05)


def known(folder: Path) -> dict[str, Any]:
    file = folder / "trackers" / "mlflow.json"
    return json.loads(file.read_text()) if file.exists() else {"step": None}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_another_one(how, here, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(teller, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(teller, "RETRY_SECONDS", 0.05)
    told = Teller("mlflow")
    beginning = Beginning(name=how.name, settings={"seed": 1}, folder=str(tmp_path))
    told.follow("r", beginning, LocalStorage(str(tmp_path)))
    told.add("r", [Point(1, 1.0, {"loss": 3.0})])
    until(lambda: known(tmp_path)["step"] == 1)
    (process,) = called("job.trackers")
    monkeypatch.setattr(teller, "ANSWER_SECONDS", 1.0)
    process.send_signal(how)
    told.add("r", [Point(2, 2.0, {"loss": 2.0})])
    until(lambda: bool(caplog.records))
    monkeypatch.setattr(teller, "ANSWER_SECONDS", 120.0)
    told.end("r", FINISHED, Point(2, 3.0, {}), ())
    told.close(STOPPED)
    assert not process.is_running()
    (warning,) = (record.getMessage() for record in caplog.records)
    assert ("its process ended" if how == signal.SIGKILL else "no answer") in warning
    run = here.runs()[how.name]
    assert run.info.status == "FINISHED"
    points = here.mlflow.get_metric_history(run.info.run_id, "loss")
    assert [(p.step, p.value) for p in points] == [(1, 3.0), (2, 2.0)]


def test_what_was_told_is_not_told_again():
    told = Told("r").after([Point(10, 0.0, {}), Point(20, 0.0, {"epoch": 1}), Point(25, 0.0, {})])
    assert told == Told("r", 25, 1)
    passed = [Point(step, 0.0, {}) for step in (20, 25, 30)]
    assert [told.is_new(point) for point in passed] == [False, False, True]
    # An epoch that ended when this process did.
    assert told.is_new(Point(25, 0.0, {"epoch": 2}))
    assert not told.is_new(Point(25, 0.0, {"epoch": 1}))


def test_trials_are_runs_below_that_of_their_sweep(here, lenet):
    sweep = ("sweep", "--name", "s", "--address", "local", "--model", "ffnn", "--limit-train", 1500)
    # A step of Muon is a tenth of a second here.
    sweep = (*sweep, "--trials", 2, "--max-epochs", 2, "--scheduler", "fifo", "--optimizer", "adam")
    done = lenet(*sweep, "--tracker", "mlflow,trackio", cwd=here.folder, **here.environment)
    assert done.returncode == 0, done.stderr
    assert "--tracker" not in done.stderr
    runs = here.runs()
    own, trials = runs["s"], [runs["s-0000"], runs["s-0001"]]
    folder = here.folder / "runs" / "s"
    kept = read_sweep(LocalStorage(str(folder)))
    assert own.info.run_id == identity(folder, "mlflow")
    assert own.data.metrics["test_accuracy"] == kept.winner.test_accuracy[0]
    files = {file.path for file in here.mlflow.list_artifacts(own.info.run_id)}
    assert files == {"sweep.json", "winner.json", "trials"}
    for run, trial in zip(trials, kept.trials, strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == own.info.run_id
        assert run.data.params["batch_size"] == str(trial.plan.settings["batch_size"])
        points = here.mlflow.get_metric_history(run.info.run_id, "val_accuracy")
        assert [p.value for p in points] == [row.val_accuracy for row in trial.outcome.history]
        assert len(points) == 2
    groups = {
        name: json.loads(config)["_Group"]
        for name, config in here.trackio("select run_name, config from configs")
    }
    assert {name for name, group in groups.items() if group == "s"} == {"s", "s-0000", "s-0001"}


def test_a_sweep_of_before_keeps_its_tracker(tmp_path):
    kept = Path(__file__).parents[1] / "test_runs" / "kept" / "sweep"
    document = json.loads((kept / "sweep.json").read_text())
    document["config"]["tracker"] = "wandb"
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    found = read_sweep(LocalStorage(str(tmp_path)))
    assert "tracker" not in found.config
    assert over_recipe(found.base).trackers == ("wandb",)
