"""What an earlier version left in a folder goes on; kept/README.md says what it is."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.runs.run import open_run
from job.storage.open import open_storage
from tests.kit.commands import Lenet, asked, environment
from tuning.records import FINISHED, UNFINISHED, read_sweep
from tuning.report.totals import config_of

pytestmark = pytest.mark.minutes

KEPT = Path(__file__).with_name("kept")
EXPECTED = json.loads((KEPT / "expected.json").read_text())
RUNS = ("interrupted", "finished", "sweep")
PICTURES = [f"{i}.png" for i in range(len(EXPECTED["predicted"]))]


def close(value: object) -> object:
    """With one thread, with AVX2 only, or without oneDNN, losses differ in the eighth digit."""
    return pytest.approx(value, rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy, in which they go on."""
    folder = tmp_path_factory.mktemp("kept")
    for path in KEPT.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / ("runs" if path.name in RUNS else "") / path.name)
        elif path.suffix == ".png":
            shutil.copy(path, folder)
    for document in (folder / "runs").rglob("*.json"):
        document.write_text(document.read_text().replace("{folder}", str(folder)))
    return folder


def told(lenet: Lenet, folder: Path, *arguments: object) -> object:
    done = lenet(*arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_settings_keep_their_digest():
    """Otherwise no checkpoint is restored."""
    for name, digest in EXPECTED["digests"].items():
        assert open_run(str(KEPT / name)).config.digest == digest


def test_runs_are_listed(lenet, folder):
    listed = {run["name"]: run["state"] for run in told(lenet, folder, "runs")}
    assert listed == {"interrupted": "stopped", "finished": "finished"}


@pytest.fixture(scope="module")
def continued(lenet, folder) -> dict:
    """The result of the interrupted run."""
    assert open_run(str(folder / "runs/interrupted")).restore().current.steps > 0
    return told(lenet, folder, "train", "--name", "interrupted")


def test_an_interrupted_run_goes_on_to_its_end(continued, folder):
    expected = EXPECTED["evaluated"]["interrupted"]
    with (folder / "runs/interrupted/history.csv").open() as stream:
        history = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    assert history == close(expected["val_loss"])
    assert continued["test_loss"] == close(expected["test_loss"])
    assert continued["test_accuracy"] == expected["test_accuracy"]
    assert (continued["restarts"], continued["lost_steps"]) == (1, 0)
    # To the bit, where it is known what the earlier version would have made of it here.
    here = EXPECTED["weights_sha256"].get(continued["device"])
    assert here in (None, continued["weights_sha256"])


def test_a_finished_run_is_evaluated_and_answers(lenet, folder):
    found = told(lenet, folder, "evaluate", "finished")
    expected = EXPECTED["evaluated"]["finished"]
    assert found["loss"] == close(expected["test_loss"])
    assert found["accuracy"] == expected["test_accuracy"]
    answers = told(lenet, folder, "predict", "finished", *PICTURES)
    for answer, probabilities in zip(answers, EXPECTED["predicted"], strict=True):
        # They are told with six digits.
        assert answer["probabilities"] == pytest.approx(probabilities, abs=2e-6)


def test_a_half_done_sweep_goes_on_to_its_winner(lenet, folder):
    place = open_storage(str(folder / "runs")).at("sweep")
    states = [trial.outcome.state for trial in read_sweep(place).trials]
    assert states == [FINISHED, UNFINISHED, UNFINISHED]
    done = lenet("sweep", "--name", "sweep", "--address", "local", cwd=folder)
    assert done.returncode == 0, done.stderr
    sweep, expected = read_sweep(place), EXPECTED["winner"]
    losses = [[row.val_loss for row in trial.outcome.history] for trial in sweep.trials]
    assert losses == [close(trial) for trial in EXPECTED["trials"]]
    assert sweep.trials[1].outcome.restarts == 1
    assert sweep.winner.trial == expected["trial"]
    assert list(sweep.winner.test_accuracy) == expected["test_accuracy"]
    # It says in words of today what the recipe of that time was.
    before = expected["command"].replace("{folder}", str(folder))
    assert asked(sweep.winner.command) == asked(before.replace("quick", "quick-1"))


# In one process, so that TensorFlow is imported once.
ALL = """
import sys
import tuning.cli
from tuning.cli import run_command
for line in sys.stdin.read().splitlines():
    print(run_command(line.split()), line, file=sys.stderr)
"""


def all_work(folder: Path, *commands: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL],
        cwd=folder,
        env=environment(),
        input="\n".join(commands),
        capture_output=True,
        text=True,
    )
    failed = [c for c in commands if f"0 {c}" not in done.stderr.splitlines()]
    assert not failed, done.stderr


def test_all_commands_read_them(folder, continued):
    reports = [f"report {name}" for name in RUNS]
    all_work(folder, *reports, "compare interrupted finished", "export finished --format onnx")


def test_a_run_beyond_todays_limits_is_still_read(folder):
    """As if limits had been wider when it was trained."""
    kept = open_run(str(folder / "runs/finished"))
    wider = {"batch_size": 70_000, "augment_shift": 9, "gpus_per_worker": 2, "hang_timeout": 0.5}
    config = dataclasses.replace(kept.config, **wider, name="beyond")
    place = folder / "runs/beyond"
    shutil.copytree(folder / "runs/finished", place, ignore=shutil.ignore_patterns("checkpoints"))
    document = {"created": kept.created, "config": config.to_dict()}
    (place / "config.json").write_text(json.dumps(document))
    state = kept.restore()
    open_run(str(place)).checkpoints.save(state.step, state.to_files())
    all_work(
        folder,
        *("evaluate beyond", "predict beyond 0.png", "runs beyond", "compare beyond finished"),
        *("report beyond", "export beyond --format savedmodel"),
    )


def test_a_sweep_beyond_todays_limits_is_still_reported(lenet, folder):
    place = folder / "runs/beyond-sweep"
    shutil.copytree(KEPT / "sweep", place)
    document = json.loads((place / "sweep.json").read_text()) | {"name": "beyond-sweep"}
    document["config"] |= {"finalists": 5000, "gpus_per_trial": 9999.0}
    document["base"]["batch_size"] = 70_000
    document["space"]["learning_rate"][0]["values"] = [1e9]
    (place / "sweep.json").write_text(json.dumps(document))
    sweep = read_sweep(open_storage(str(place)))
    assert config_of(sweep, sweep.trials[0]).batch_size == 70_000
    done = lenet("report", "beyond-sweep", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "70000" in (folder / done.stdout.splitlines()[0]).read_text()
    done = lenet("sweep", "--name", "beyond-sweep", cwd=folder)
    assert done.returncode == 2
    assert "a worker computes on one GPU" in done.stderr
