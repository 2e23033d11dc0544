"""All of the product on a stand-in GPU (kit/stand_in_gpu/device.cc), where there is none: train,
go on, evaluate, predict, sweep, several workers."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from job.storage.open import open_storage
from tests.kit.commands import Lenet, command, environment, result_of
from tests.kit.nodes import Nodes, training_workers
from tests.kit.stand_in import NAME, NONE, StandIn
from tuning.records import FINISHED, read_sweep

pytestmark = pytest.mark.minutes

# The recipe with everything: augmentation, a schedule, label smoothing.
SETTINGS = (
    *("--recipe", "quick", "--limit-train", 2000, "--epochs", 2, "--seed", 5),
    *("--augment-shift", 2, "--checkpoint-every", 4),
)
ON_IT = f"gpu ({NAME})"
SAME = ("weights_sha256", "best_weights_sha256", "test_accuracy", "val_loss")
# Two workers on one GPU, which a ring joins.
HALVES = ("--workers", 2, "--gpus-per-worker", 0.5, "--cpus-per-worker", 1)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


@pytest.fixture(scope="module")
def whole(lenet: Lenet, stand_in_gpu: StandIn, tmp_path_factory, mnist) -> Path:
    """The folder of an undisturbed run on one GPU."""
    folder = tmp_path_factory.mktemp("whole")
    done = lenet("train", *SETTINGS, "--name", "r", cwd=folder, **stand_in_gpu.env())
    assert done.returncode == 0, done.stderr
    result = result_of(folder / "runs/r")
    assert result["device"] == ON_IT
    assert result["accelerator"].keys() == {"driver", "cuda", "cudnn", "nccl", "compute_capability"}
    assert [one["device"] for one in result["devices"]] == [ON_IT]
    return folder


def test_it_computes_what_the_processor_beside_it_does(whole, lenet, stand_in_gpu, tmp_path):
    """Other kernels round sums in another order: 1e-4 of the loss after 32 steps (measured)."""
    given = (*SETTINGS, "--device", "cpu", "--name", "r")
    done = lenet("train", *given, cwd=tmp_path, **stand_in_gpu.env())
    assert done.returncode == 0, done.stderr
    assert result_of(tmp_path / "runs/r")["device"].startswith("cpu")
    for here, there in zip(rows(tmp_path / "runs/r"), rows(whole / "runs/r"), strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-3)
        assert there["val_accuracy"] == pytest.approx(here["val_accuracy"], abs=1e-3)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(
    number, whole, lenet, stand_in_gpu, tmp_path
):
    env = stand_in_gpu.env()
    process = subprocess.Popen(
        command("train", *SETTINGS, "--name", "r"), cwd=tmp_path, env=environment(**env)
    )
    # The run must not finish first.
    while not any((tmp_path / "runs/r/checkpoints").glob("step-*")):
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait() in (130, -9)
    done = lenet("train", "--name", "r", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    assert "continuing r at step" in done.stderr
    ours, undisturbed = result_of(tmp_path / "runs/r"), result_of(whole / "runs/r")
    assert {key: ours[key] for key in SAME} == {key: undisturbed[key] for key in SAME}
    assert ours["device"] == ON_IT


def test_evaluate_and_predict(whole, lenet, stand_in_gpu, tmp_path, mnist):
    env = stand_in_gpu.env(counts=tmp_path)
    done = lenet("evaluate", "r", "--json", cwd=whole, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == result_of(whole / "runs/r")["test_accuracy"]
    digit = Image.frombytes("L", (28, 28), mnist["t10k-images-idx3-ubyte"][16 : 16 + 784])
    digit.save(tmp_path / "digit.png")
    both = [
        lenet("predict", "r", tmp_path / "digit.png", "--json", cwd=whole, **given)
        for given in (env, NONE)
    ]
    [there], [here] = (json.loads(one.stdout) for one in both)
    assert there["prediction"] == here["prediction"]
    assert there["probabilities"] == pytest.approx(here["probabilities"], abs=1e-5)
    # Both commands computed on it.
    counted = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert [one["kernels"]["Conv2D"][0] > 0 for one in counted] == [True, True]


def test_of_two_gpus_one_is_used_and_the_other_not_touched(whole, lenet, stand_in_gpu, tmp_path):
    env = stand_in_gpu.env(count=2, counts=tmp_path)
    done = lenet("train", *SETTINGS, "--name", "r", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    assert ["--workers 2" in line for line in done.stderr.splitlines()].count(True) == 1
    (counted,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert counted["devices"] == [0]
    ours, alone = result_of(tmp_path / "runs/r"), result_of(whole / "runs/r")
    assert {key: ours[key] for key in SAME} == {key: alone[key] for key in SAME}


@pytest.fixture(scope="module")
def nodes(stand_in_gpu: StandIn, tmp_path_factory, mnist) -> Iterator[Nodes]:
    """A cluster of one machine with a GPU."""
    folder = tmp_path_factory.mktemp("nodes")
    with Nodes(folder, 1, cpus=2, gpus=1, **stand_in_gpu.env()) as cluster:
        yield cluster


def test_two_workers_with_half_a_gpu_each_and_one_of_them_killed(whole, nodes):
    undisturbed = nodes.result(nodes.start("two", *SETTINGS, *HALVES), "two")
    assert (undisturbed["device"], undisturbed["workers"]) == (ON_IT, 2)
    for one, two in zip(rows(whole / "runs/r"), rows(nodes.folder / "runs/two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    driver = nodes.start("killed", *SETTINGS, *HALVES)
    nodes.reach(driver, "killed", 8)
    training_workers(os.getpid())[0].kill()
    killed = nodes.result(driver, "killed")
    assert killed["restarts"] == 1
    assert {key: killed[key] for key in SAME} == {key: undisturbed[key] for key in SAME}


def test_two_trials_with_half_a_gpu_each(lenet, nodes):
    (nodes.folder / "space.toml").write_text("[learning_rate]\nvalues = [0.02, 0.05]\n")
    done = lenet(
        *("sweep", *SETTINGS[:4], "--search", "grid", "--space", "space.toml"),
        *("--scheduler", "fifo", "--max-epochs", 2, "--name", "s", "--gpus-per-trial", 0.5),
        *("--address", nodes.cluster.address, "--finalists", 1),
        cwd=nodes.folder,
    )
    assert done.returncode == 0, done.stderr
    outcomes = [
        t.outcome for t in read_sweep(open_storage(str(nodes.folder / "runs")).at("s")).trials
    ]
    assert [(one.state, one.device) for one in outcomes] == [(FINISHED, ON_IT)] * 2
    # At the same time.
    first, second = sorted(outcomes, key=lambda one: one.started)
    assert second.started < first.started + first.seconds
