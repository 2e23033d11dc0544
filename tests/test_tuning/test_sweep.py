"""Sweeps as a user runs them: real trials in real processes of a real Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest

from job.storage.open import open_storage
from tests.kit.commands import Lenet, command, environment, lines_of, result_of, tree
from tests.kit.fault_proxy import EXPIRED, FaultProxy
from tests.kit.nodes import called
from tuning.records import (
    FAILED,
    FINISHED,
    REPEAT,
    SEARCH,
    STOPPED,
    Outcome,
    Sweep,
    merit,
    read_sweep,
)

pytestmark = pytest.mark.minutes

DIGITS = Path(__file__).parents[1] / "test_runs" / "kept" / "digits"
NET = """
from keras import Input, Sequential, layers

class Scaled(layers.Dense):
    def call(self, inputs):
        return super().call(inputs / 2)

def net(image_shape, classes):
    return Sequential(
        [Input(image_shape), layers.Flatten(), Scaled(8, "relu"), layers.Dense(classes)]
    )
"""
ALONE = ("--model", "ffnn", "--limit-train", 2000)
QUICK = (*ALONE, "--address", "local")
# Few steps: one of Muon is a tenth of a second here.
LARGE = ("--batch-size", 256)


def swept(place: Path | str, name: str = "s") -> Sweep:
    return read_sweep(open_storage(str(place)).at(name))


def numbers(outcome: Outcome) -> list[dict]:
    """What a trial's epochs say, without how long they took."""
    rows = [dataclasses.asdict(row) for row in outcome.history]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@dataclasses.dataclass(frozen=True)
class Done:
    folder: Path
    sweep: Sweep
    stdout: str
    stderr: str


# The first point diverges.
GRID = """
[learning_rate]
values = [100.0, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005]
"""
SGD = ("--optimizer", "sgd", "--schedule", "constant", "--batch-size", 50)


@pytest.fixture(scope="module")
def done(lenet: Lenet, tmp_path_factory, mnist) -> Done:
    """A small finished sweep: eight trials under ASHA, two finalists with one more seed each."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "space.toml").write_text(GRID)
    run = lenet(
        *("sweep", *QUICK, *SGD, "--search", "grid", "--space", "space.toml"),
        *("--max-epochs", 4, "--seed", 5, "--name", "s", "--finalists", 2, "--repeats", 1),
        cwd=folder,
    )
    assert run.returncode == 0, run.stderr
    return Done(folder, swept(folder / "runs"), run.stdout, run.stderr)


def test_the_best_validation_accuracy_wins_by_its_mean_over_seeds(done):
    search = {t.plan.number: t for t in done.sweep.trials if t.plan.kind == SEARCH}
    repeats = [t for t in done.sweep.trials if t.plan.kind == REPEAT]
    assert len(search) == 8
    sound = [t for t in search.values() if t.outcome.state != FAILED]
    ranked = sorted(sound, key=lambda t: merit(t.outcome), reverse=True)
    assert {t.plan.repeats for t in repeats} == {t.plan.number for t in ranked[:2]}

    def mean(number: int) -> float:
        same = [search[number], *(t for t in repeats if t.plan.repeats == number)]
        return sum(t.outcome.best.val_accuracy for t in same) / len(same)

    winner = done.sweep.winner
    assert mean(winner.trial) == max(mean(t.plan.number) for t in ranked[:2])
    assert sum(winner.val_accuracy) / 2 == pytest.approx(mean(winner.trial))
    for trial in repeats:
        assert trial.plan.settings == search[trial.plan.repeats].plan.settings
        assert trial.plan.seed == 6
    assert {t.plan.seed for t in search.values()} == {5}


def test_a_failed_trial_is_recorded_and_does_not_end_the_sweep(done):
    first, *others = done.sweep.trials
    assert first.outcome.state == FAILED
    assert "the loss became" in first.outcome.error
    assert all(t.outcome.state != FAILED for t in others)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("trial 0 failed"))
    assert "lower --learning-rate" in line


def test_the_test_set_is_read_for_the_winner_alone(done):
    trials = done.folder / "runs" / "s" / "trials"
    read = {int(path.parent.name) for path in trials.glob("*/result.json")}
    assert read == set(done.sweep.winner.members)
    results = [result_of(trials / f"{n:04d}") for n in done.sweep.winner.members]
    assert [r["test_accuracy"] for r in results] == list(done.sweep.winner.test_accuracy)
    assert all((trials / f"{n:04d}" / "model.keras").exists() for n in read)


def test_asha_stops_trials_that_fall_behind(done):
    """Whoever is stopped was, when it was stopped, not among the better third of what had come so
    far; those that finish have all epochs, and repeats are never stopped."""
    by_state = {
        state: [t for t in done.sweep.trials if t.outcome.state == state]
        for state in (FINISHED, STOPPED)
    }
    assert by_state[STOPPED]
    assert by_state[FINISHED]
    assert all(len(t.outcome.history) in (1, 3) for t in by_state[STOPPED])
    assert all(len(t.outcome.history) == 4 for t in by_state[FINISHED])
    assert all(t.plan.kind == SEARCH for t in by_state[STOPPED])
    firsts = [t.outcome.history[0].val_accuracy for t in by_state[STOPPED]]
    best = max(t.outcome.history[0].val_accuracy for t in by_state[FINISHED])
    assert all(first <= best for first in firsts)


def test_the_command_of_the_winner_trains_its_weights_again(done, tmp_path):
    """In a process of its own, and with as many threads as a trial had."""
    words = done.sweep.winner.command.split()
    assert words[:2] == ["lenet", "train"]
    again = subprocess.run(
        ["taskset", "-c", "0", *command(*words[1:], "--name", "again")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    trial = done.folder / "runs" / "s" / "trials" / f"{done.sweep.winner.trial:04d}"
    mine = result_of(tmp_path / "runs" / "again")
    assert mine["weights_sha256"] == result_of(trial)["weights_sha256"]
    assert mine["test_accuracy"] == done.sweep.winner.test_accuracy[0]


def test_what_is_decided_at_the_start_is_kept(done):
    """The same for all trials, and for those that a later version begins."""
    assert done.sweep.base["xla"] is False
    for trial in done.folder.glob("runs/s/trials/*/config.json"):
        assert json.loads(trial.read_text())["config"]["xla"] is False


def test_what_is_said(done):
    """What comes, a line for each trial as it ends, no noise; at the end what to do next."""
    first, *lines = lines_of(done.stderr)
    assert first.startswith("8 trials of at most 4 epochs, "), first
    assert len(lines) == len(done.sweep.trials)
    assert all(line.startswith("trial ") for line in lines)
    assert f"winner          trial {done.sweep.winner.trial}: " in done.stdout
    assert "lenet report s" in done.stdout
    assert "±" in done.stdout


def test_optuna_opens_a_sweep(done):
    """As a plain script does that knows nothing of this project."""
    script = """
import json, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
storage = JournalStorage(JournalFileBackend("runs/s/optuna-journal.log"))
study = optuna.load_study(study_name="s", storage=storage)
print(json.dumps([study.best_value, len(study.trials)]))
"""
    command = [sys.executable, "-c", script]
    opened = subprocess.run(command, cwd=done.folder, capture_output=True, text=True, check=True)
    best, count = json.loads(opened.stdout)
    finished = [t.outcome for t in done.sweep.trials if t.outcome.state == FINISHED]
    assert best == max(outcome.best.val_accuracy for outcome in finished)
    assert count == len(done.sweep.trials)


def test_a_finished_sweep_is_not_run_again(done, lenet):
    before = tree(done.folder)
    again = lenet("sweep", *QUICK, "--name", "s", cwd=done.folder)
    assert again.returncode == 2
    assert "this sweep has finished" in again.stderr
    assert tree(done.folder) == before


FIFO = (*QUICK, *LARGE, "--trials", 4, "--max-epochs", 3, "--scheduler", "fifo", "--name", "s")


class Driver:
    """A sweep in a process of its own."""

    def __init__(self, folder: Path, *arguments: object, **env: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        with (folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command("sweep", *arguments), cwd=folder, env=environment(**env), stderr=log
            )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        trials = self.trial_processes()
        self.process.kill()
        self.process.wait()
        # Helpers of Ray linger for a minute; they do nothing.
        psutil.wait_procs(trials, timeout=60)

    def trial_processes(self) -> list[psutil.Process]:
        return called("ResourceTrainable", self.process.pid)

    def finish(self) -> None:
        assert self.process.wait() == 0, (self.folder / "log").read_text()


@contextlib.contextmanager
def driver(folder: Path, *arguments: object, **env: str) -> Iterator[Driver]:
    running = Driver(folder, *arguments, **env)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


SECRET = "a-secret-that-is-none"


@pytest.fixture(scope="module")
def finished_driver(tmp_path_factory, mnist) -> Driver:
    folder = tmp_path_factory.mktemp("undisturbed")
    secrets = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": SECRET}
    with driver(folder, *FIFO, **secrets) as running:
        running.finish()
    return running


@pytest.fixture(scope="module")
def undisturbed(finished_driver) -> Sweep:
    return swept(finished_driver.folder / "runs")


def test_secrets_of_the_environment_stay_out_of_rays_files(finished_driver):
    """Ray Tune hands them on to trials in a way that Ray logs."""
    place = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
    session = place.glob(f"session_*_{finished_driver.process.pid}")
    files = [path for folder in session for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "runtime_env_agent.log" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def assert_same(sweep: Sweep, undisturbed: Sweep) -> None:
    for mine, theirs in zip(sweep.trials, undisturbed.trials, strict=True):
        assert mine.plan == theirs.plan
        assert mine.outcome.state == theirs.outcome.state
        assert numbers(mine.outcome) == numbers(theirs.outcome)
    assert sweep.winner == undisturbed.winner


def epochs_done(place: Path) -> int:
    """Epochs of all trials so far, by their histories."""
    files = place.glob("s/trials/*/history.csv")
    return sum(max(0, len(file.read_text().splitlines()) - 1) for file in files)


def outcomes(place: Path) -> dict[str, int]:
    """The trials that have ended, and when that was written."""
    return {file.name: file.stat().st_mtime_ns for file in place.glob("s/outcomes/*.json")}


def restarts_noted(place: Path) -> int:
    """How often all trials so far were taken up again."""
    files = place.glob("s/trials/*/reached.json")
    return sum(json.loads(file.read_text())["restarts"] for file in files)


def test_disturbed_in_any_way_it_ends_with_the_same_trials(undisturbed, lenet, tmp_path):
    """Three drivers, one after the other: Ctrl-C is pressed, it is killed, and it loses the
    processes of its trials. Others are refused meanwhile."""
    place = tmp_path / "runs"
    with driver(tmp_path, *FIFO) as running:
        running.wait_for(lambda: bool(list(place.glob("s/plans/*.json"))))
        second = lenet("sweep", *FIFO, cwd=tmp_path)
        assert second.returncode == 2
        assert f"process {running.process.pid} on " in second.stderr
        running.wait_for(lambda: epochs_done(place) >= 1)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait() == 130
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert "continue with: lenet sweep --name s" in last
    assert swept(place).winner is None

    ended = outcomes(place)
    with driver(tmp_path, *FIFO) as running:
        running.wait_for(lambda: outcomes(place) != ended)
        running.kill()
    kept = outcomes(place)
    other = lenet("sweep", *FIFO, "--scheduler", "asha", cwd=tmp_path)
    assert other.returncode == 2
    assert "--scheduler 'asha': sweep 's' was started with 'fifo'" in other.stderr
    seed = lenet("sweep", *FIFO, "--seed", 9, cwd=tmp_path)
    assert seed.returncode == 2
    assert "--seed" in seed.stderr

    with driver(tmp_path, *FIFO) as running:
        before = epochs_done(place)
        running.wait_for(lambda: epochs_done(place) > before)
        restarts = restarts_noted(place)
        for process in running.trial_processes():
            process.kill()
        running.finish()
    sweep = swept(place)
    assert_same(sweep, undisturbed)
    assert sum(t.outcome.restarts for t in sweep.trials) > restarts
    assert {name: written for name, written in outcomes(place).items() if name in kept} == kept


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_anywhere_it_ends_with_the_same_trials(undisturbed, tmp_path):
    """10 sweeps, each killed at a random moment."""
    moments = random.Random(1)
    for i in range(10):
        folder = tmp_path / str(i)
        at = moments.randrange(1, 12)
        with driver(folder, *FIFO) as running:
            running.wait_for(lambda: epochs_done(folder / "runs") >= at)  # noqa: B023
            time.sleep(moments.random() * 0.3)
            running.kill()
        kept = outcomes(folder / "runs")
        with driver(folder, *FIFO) as running:
            running.finish()
        assert_same(swept(folder / "runs"), undisturbed)
        # What had ended was not done again.
        now = outcomes(folder / "runs")
        assert {name: now[name] for name in kept} == kept


@pytest.mark.long
def test_killed_with_its_files_in_object_storage_it_goes_on(undisturbed, s3, store, tmp_path):
    """And its credentials expire on the way."""
    where = (*FIFO, "--storage", s3)
    with driver(tmp_path, *where, **store.env()) as running:
        running.wait_for(lambda: bool(open_storage(s3).at("s/outcomes").list()))
        running.kill()

    def expiring(method: str, path: str) -> str | None:
        is_first = not proxy.injected[EXPIRED] and (method == "PUT" and "/outcomes/" in path)
        return EXPIRED if is_first else None

    elsewhere = tmp_path / "elsewhere"
    with FaultProxy(store.endpoint, expiring) as proxy:
        with driver(elsewhere, *where, **store.env(proxy.endpoint)) as running:
            running.finish()
        assert proxy.injected[EXPIRED] == 1
    sweep = swept(s3)
    assert_same(
        dataclasses.replace(sweep, winner=None), dataclasses.replace(undisturbed, winner=None)
    )
    assert sweep.winner.test_accuracy == undisturbed.winner.test_accuracy


def test_the_time_budget_ends_the_search_but_not_the_choice(lenet, tmp_path, mnist):
    run = lenet(
        *("sweep", *QUICK, *LARGE, "--trials", 50, "--max-epochs", 4, "--scheduler", "fifo"),
        *("--finalists", 1, "--repeats", 1, "--time-budget", "5s", "--name", "s"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    *search, repeat = swept(tmp_path / "runs").trials
    assert len(search) < 50
    assert {t.outcome.error for t in search if t.outcome.state == STOPPED} == {"the time was over"}
    assert (repeat.plan.kind, repeat.outcome.state) == (REPEAT, FINISHED)
    assert len(repeat.outcome.history) == 4
    assert swept(tmp_path / "runs").winner is not None


def test_a_model_of_ones_own_is_swept_without_its_source(lenet, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "space.toml").write_text("[learning_rate]\nvalues = [0.003, 0.001]\n")
    given = ("--name", "s", "--address", "local", "--max-epochs", 2, "--batch-size", 50)
    words = ("--model", "net.py:net", "--dataset", "own", "--data", DIGITS)
    search = ("--search", "grid", "--space", "space.toml", "--finalists", 1, "--repeats", 0)
    done = lenet("sweep", *words, *given, *search, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "net.py").unlink()
    folder = tmp_path / "runs" / "s"
    architecture = (folder / "architecture.json").read_bytes()
    winner = swept(tmp_path / "runs").winner
    trial = folder / "trials" / f"{winner.trial:04}"
    assert (trial / "architecture.json").read_bytes() == architecture
    assert result_of(trial)["model"] == "net.py:net"
    report = lenet("report", "s", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert "net.py:net" in winner.command


def test_trials_begin_where_a_run_ended(finished_run, lenet, tmp_path, mnist):
    """At rates of nearly nothing they stay there; the run may be gone by then."""
    shutil.copytree(finished_run, tmp_path / "runs" / "first")
    (tmp_path / "space.toml").write_text("[learning_rate]\nvalues = [1e-9, 1e-8]\n")
    few = ("--limit-train", 500, "--batch-size", 50, "--weight-decay", 0, "--max-epochs", 1)
    search = ("--search", "grid", "--space", "space.toml", "--finalists", 1, "--repeats", 0)
    words = ("--model", result_of(finished_run)["model"], "--start-from", "first")
    done = lenet(
        *("sweep", *words, *few, *search, "--name", "s", "--address", "local"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    sweep = swept(tmp_path / "runs")
    for trial in sweep.trials:
        (row,) = trial.outcome.history
        assert row.val_accuracy == pytest.approx(result_of(finished_run)["val_accuracy"], abs=1e-3)
    folder = tmp_path / "runs" / "s"
    given = (folder / "start.safetensors").read_bytes()
    assert (folder / "trials" / "0001" / "start.safetensors").read_bytes() == given
    assert "--start-from first" in sweep.winner.command
    bad = ("--space", "models.toml")
    (tmp_path / "models.toml").write_text('[model]\nvalues = ["lenet5", "ffnn"]\n')
    refused = lenet("sweep", "--start-from", "first", *bad, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--start-from 'first': goes with one model; do not search it" in refused.stderr


@pytest.mark.long
def test_optuna_picks_the_trials_of_a_sweep(lenet, tmp_path, mnist):
    run = lenet(
        *("sweep", *QUICK, *LARGE, "--trials", 3, "--max-epochs", 1, "--search", "optuna"),
        *("--name", "s"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert len(swept(tmp_path / "runs").trials) == 3


def test_trials_of_several_workers_are_runs_of_ray_train(lenet, tmp_path, mnist, full):
    """The same numbers as on one worker; in the long form also a trial that diverges, alone."""
    rates = "[0.02, 100.0]" if full else "[0.02]"
    (tmp_path / "space.toml").write_text(f"[learning_rate]\nvalues = {rates}\n")
    sweep = lenet(
        *("sweep", *QUICK, *SGD, "--search", "grid", "--space", "space.toml", "--name", "s"),
        *("--max-epochs", 2, "--workers-per-trial", 2, "--cpus-per-trial", 2),
        cwd=tmp_path,
    )
    assert sweep.returncode == 0, sweep.stderr
    alone = lenet(
        *("train", *ALONE, *SGD, "--learning-rate", 0.02, "--epochs", 2, "--name", "alone"),
        cwd=tmp_path,
    )
    assert alone.returncode == 0, alone.stderr
    good, *bad = swept(tmp_path / "runs").trials
    assert good.outcome.state == FINISHED
    assert [t.outcome.state for t in bad] == ([FAILED] if full else [])
    table = pyarrow.parquet.read_table(tmp_path / "runs/alone/history.parquet")
    for mine, theirs in zip(good.outcome.history, table.to_pylist(), strict=True):
        assert mine.val_loss == pytest.approx(theirs["val_loss"], rel=1e-5)
    assert result_of(tmp_path / "runs/s/trials/0000")["workers"] == 2


BAD = {
    "no trials": (["--trials", "0"], "must be between 1 and"),
    "more GPUs than there are": (["--gpus-per-trial", "1"], "no trial of that size fits; there is"),
    "two GPUs for a worker": (
        ["--gpus-per-trial", "2"],
        "is more than 1 for each of --workers-per-trial 1: a worker computes on one GPU",
    ),
    "more processors": (["--cpus-per-trial", "999"], "no trial of that size fits; there is"),
    "an unknown search": (["--search", "tpe"], "choose one of random, optuna, grid"),
    "an unknown scheduler": (["--scheduler", "ash"], "did you mean 'asha'"),
    "a part of a grid": (["--trials", "5", "--search", "grid"], "the grid has 90 points"),
    "no such space": (["--space", "none.toml"], "can't be read: No such file"),
    "nothing to search": (
        ["--batch-size", "32", "--optimizer", "adam", "--learning-rate", "0.1", "--space", ""],
        "must not be empty",
    ),
    "a bad time": (["--time-budget", "soon"], "such as 90s, 30m or 1.5h"),
    "an unknown model": (["--model", "lenet"], "did you mean 'lenet5'"),
    "an unknown tracker": (["--tracker", "mlflw"], "did you mean 'mlflow'"),
    "no data": (["--data", "nowhere"], "--data"),
    "a dead address": (["--address", "127.0.0.1:1"], "no Ray cluster answers there"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, lenet, tmp_path, mnist):
    arguments, why = BAD[case]
    local = [] if "--address" in arguments else ["--address", "local"]
    done = lenet("sweep", *local, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert line.startswith(f"error: {arguments[-2]}") or why in line
    assert why in line
    assert not any(tmp_path.iterdir())


def task_of(kind: str, folder: Path):
    from job.config.resolve import resolve
    from job.data.catalogue import CATALOGUE
    from tuning.trials.trial import Task

    return Task(
        kind=kind,
        is_search=True,
        number=3,
        run=resolve({"model": "ffnn", "name": "0003", "storage": str(folder)}).to_dict(),
        outcome={"device": "cpu"},
        dataset=CATALOGUE["mnist"].to_dict(),
        threads=1,
        gpus=0.0,
    )


def test_a_winner_that_can_not_be_evaluated_ends_the_sweep(tmp_path):
    """Its run or its data are gone: the command says so, and goes on when they are back."""
    from tuning.trials.trial import TrialProcess

    process = TrialProcess({"task": dataclasses.asdict(task_of("evaluate", tmp_path))})
    report = process.step()
    assert report["ends_sweep"]
    assert report["done"]
    assert report["error"].startswith("the winner could not be evaluated: RUN '0003': no run in ")
    process.cleanup()


def test_an_error_of_a_trial_is_its_own(tmp_path, monkeypatch, mnist):
    """A process that ran out of memory forgets what it kept, and takes the next task."""
    from tuning.trials.trial import TrialProcess
    from tuning.trials.warm import WarmProcess

    forgotten = []

    def train(self, run):
        raise MemoryError("no room for 3 GiB\nmore words")
        yield

    monkeypatch.setattr(WarmProcess, "train", train)
    monkeypatch.setattr(WarmProcess, "forget", lambda self: forgotten.append(True))
    task = task_of("train", tmp_path)
    process = TrialProcess({"task": dataclasses.asdict(task)})
    report = process.step()
    assert report["state"] == FAILED
    assert report["error"].startswith("there is not enough memory; take a smaller --batch-size")
    assert report["done"]
    assert report["merit"] == 0.0
    assert forgotten
    assert process.reset_config({"task": dataclasses.asdict(task)})
    process.cleanup()
