"""A GPU that is expected and can't be used ends a run, in seconds and in one line: nothing trains
on processors by accident."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.storage.open import open_storage
from tests.kit.commands import command, environment, lines_of, result_of, tree
from tests.kit.gpu_machine import on_gpu_machine, problem
from tests.kit.nodes import Nodes
from tuning.records import FAILED, FINISHED, STOPPED, Sweep, read_sweep

pytestmark = pytest.mark.minutes

TINY = ("--model", "ffnn", "--limit-train", 256, "--epochs", 1)
REASON = "TensorFlow finds no GPU (failed call to cuInit"
WAY_OUT = "--device cpu"

Lenet = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def broken(tmp_path_factory, tmp_path, mnist) -> Lenet:
    """Runs `lenet …` on a machine with an NVIDIA device whose driver answers nobody."""
    folder = tmp_path_factory.mktemp("machine")
    if why := problem(folder / "tried"):
        pytest.skip(why)

    def run(*arguments: object, driver: str = "470.256.02", **env: str):
        machine = on_gpu_machine(folder / f"{time.monotonic_ns()}", command(*arguments), driver)
        return subprocess.run(
            machine, cwd=tmp_path, env=environment(**env), capture_output=True, text=True
        )

    return run


def only_line(done: subprocess.CompletedProcess) -> str:
    """The error: the last line, and the only one that is none of the progress."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:], done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def test_training_is_refused_in_one_line_and_goes_on_with_processors(broken, tmp_path):
    done = broken("train", *TINY, "--name", "r")

    assert done.returncode == 1
    line = only_line(done)
    assert REASON in line
    assert line.endswith(WAY_OUT)
    assert "NVIDIA's driver 470.256.02 is older than 525" in line
    # Nothing was written: what was decided for a GPU is not kept for the processors.
    assert not (tmp_path / "runs/r").exists()

    done = broken("train", *TINY, "--name", "r", "--device", "cpu", "--json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["device"].startswith("cpu (")
    assert result["accelerator"] is None


@pytest.mark.parametrize("arguments", [("train", *TINY, "--workers", "1:2"), ("sweep", *TINY[:4])])
def test_a_cluster_that_is_started_for_it_is_refused_before_anything_is_written(
    broken, tmp_path, arguments
):
    done = broken(*arguments, "--address", "local")

    assert done.returncode == 1
    line = only_line(done)
    assert line.startswith("error: Ray finds no GPU: ")
    assert line.endswith(WAY_OUT)
    assert not any(tree(tmp_path))


def test_a_look_at_the_machine_says_it_too(broken):
    done = broken("doctor", driver="")

    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if " GPUs " in line]
    assert line.startswith("fail")
    assert REASON in line
    assert WAY_OUT in line
    assert "NVIDIA's driver is not loaded" in line


def test_what_takes_seconds_is_done_on_processors_and_a_line_says_so(broken, finished_run):
    done = broken("evaluate", finished_run, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == result_of(finished_run)["test_accuracy"]
    (line,) = lines_of(done.stderr)
    assert line.startswith(REASON)
    assert line.endswith("; processors compute")


@pytest.fixture(scope="module")
def promised(tmp_path_factory, mnist) -> Iterator[Nodes]:
    """A cluster whose Ray has two GPUs to give, of which TensorFlow finds none."""
    with Nodes(tmp_path_factory.mktemp("promised"), 2, gpus=1) as nodes:
        yield nodes


def test_workers_that_have_a_gpu_by_ray_alone_are_not_tried_again(promised, lenet, tmp_path):
    where = ("--address", promised.cluster.address, "--workers", 2)

    done = lenet("train", *TINY, *where, cwd=tmp_path)

    assert done.returncode == 1
    line = only_line(done)
    # After other attempts it would say how often they failed.
    assert line.startswith(f"error: {REASON}")
    assert line.endswith(WAY_OUT)


def test_a_sweep_ends_at_its_first_trial_which_is_trained_when_it_goes_on(
    promised, lenet, tmp_path
):
    where = ("--address", promised.cluster.address, "--name", "s")
    searched = ("--trials", 2, "--max-epochs", 1, "--optimizer", "adam", *TINY[:4])

    done = lenet("sweep", *searched, *where, cwd=tmp_path)

    assert done.returncode == 1
    line = only_line(done)
    assert REASON in line
    assert line.endswith(WAY_OUT)
    states = [trial.outcome.state for trial in swept(tmp_path / "runs").trials]
    assert FAILED not in states
    assert FINISHED not in states

    done = lenet("sweep", *where, "--device", "cpu", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    states = [trial.outcome.state for trial in swept(tmp_path / "runs").trials]
    assert set(states) <= {FINISHED, STOPPED}
    assert len(states) == 2


def swept(place: Path) -> Sweep:
    return read_sweep(open_storage(str(place)).at("s"))
