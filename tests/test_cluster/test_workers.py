"""The same job on several workers: the same examples, the same curve, and it survives them.

Workers are real processes of a real Ray cluster that the command starts on this machine."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import ray
from ray import cloudpickle

from cluster import ray_private
from cluster.connection import connected
from cluster.workers.backend import TensorflowBackend
from job.storage.open import open_storage
from tests.kit.commands import Lenet, command, environment, lines_of, result_of
from tests.kit.nodes import Nodes, training_workers
from tuning.cli import run_command

pytestmark = pytest.mark.minutes

SETTINGS = [
    *("--limit-train", "2000", "--epochs", "2", "--batch-size", "100", "--seed", "5"),
    *("--optimizer", "momentum", "--learning-rate", "0.02", "--augment-shift", "2"),
]
# Half a processor each: four workers fit on a machine with two.
WORKERS = ["--address", "local", "--cpus-per-worker", "0.5"]


def history(run: Path) -> list[dict[str, float]]:
    lines = (run / "history.csv").read_text().splitlines()
    names = lines[0].replace('"', "").split(",")
    return [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[1:]]


class Seen(NamedTuple):
    """What Ray Train knows of a run, and what its controller logged."""

    run: Any
    log: str


class Runs:
    """Finished runs by (model, workers, repetition); each is made when it is first asked for.

    Several workers are on a cluster of their own, of which `seen` has what it knew of a run.
    """

    def __init__(self, lenet: Lenet, folder: Path) -> None:
        self._lenet, self._folder = lenet, folder
        self.seen: dict[str, Seen] = {}

    def __getitem__(self, case: tuple[str, int, int]) -> Path:
        model, workers, repetition = case
        name = f"{model}-{workers}-{repetition}"
        run = self._folder / "runs" / name
        if not run.exists():
            self._train(name, model, workers)
        return run

    def _train(self, name: str, model: str, workers: int) -> None:
        arguments = ("train", "--model", model, "--workers", workers, "--name", name, *SETTINGS)
        if workers == 1:
            done = self._lenet(*arguments, cwd=self._folder)
        else:
            with Nodes(self._folder, 2) as nodes:
                where = ("--address", nodes.cluster.address, "--cpus-per-worker", 0.5)
                done = self._lenet(*arguments, *where, cwd=self._folder)
                if done.returncode == 0:
                    self.seen[name] = seen(nodes)
        assert done.returncode == 0, done.stderr
        # One clean line an epoch, whatever the number of workers.
        first, *middle, one, two = [line.split()[0] for line in lines_of(done.stderr)]
        assert (first, one, two) == (f"{name}:", "epoch", "epoch")
        assert middle == (["workers"] if workers > 1 else [])


def seen(nodes: Nodes) -> Seen:
    """What a cluster of one run knows of it."""
    from ray.train.v2._internal.state.state_actor import get_state_actor

    with connected(nodes.cluster.address):
        [run] = ray.get(get_state_actor().get_train_runs.remote()).values()
    logs = Path(nodes.cluster.head_node.get_session_dir_path(), "logs/train")
    [log] = [path.read_text() for path in logs.glob("ray-train-app-controller-*")]
    return Seen(run, log)


@pytest.fixture(scope="module")
def runs(lenet, tmp_path_factory, mnist) -> Runs:
    return Runs(lenet, tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize(
    ("model", "workers"),
    [
        ("lenet5", 2),
        # Two workers with dropout masks: test_sweep.
        pytest.param("ffnn", 2, marks=pytest.mark.long),
        pytest.param("lenet5", 4, marks=pytest.mark.long),
        pytest.param("ffnn", 4, marks=pytest.mark.long),
    ],
)
def test_the_curve_is_that_of_one_worker(runs, model, workers):
    """Sums over 100 examples are rounded in another order: after 40 steps at this learning rate
    that is 1.2e-6 of the loss at most (measured with AVX2, four workers; a higher rate makes more),
    and one of 12,000 examples may fall on the other side. An example counted twice, a mask of
    another example or an image moved in another way changes the second digit."""
    alone, together = runs[model, 1, 0], runs[model, workers, 0]
    assert result_of(together)["workers"] == workers
    for one, many in zip(history(alone), history(together), strict=True):
        assert many["loss"] == pytest.approx(one["loss"], rel=3e-6)
        assert many["val_loss"] == pytest.approx(one["val_loss"], rel=3e-6)
        assert many["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=1.01 / 12_000)


def test_a_worker_is_sent_nothing_of_the_group_before_it():
    """An error of TensorFlow's among it would import TensorFlow before its settings are made."""
    import tensorflow as tf

    backend = TensorflowBackend()
    backend.group = tf.errors.UnavailableError(None, None, "of a worker whose peer was killed")
    sent = cloudpickle.dumps(backend)
    assert b"tensorflow.python" in cloudpickle.dumps(backend.group)
    assert b"tensorflow.python" not in sent
    assert pickle.loads(sent).group is None


@pytest.mark.long
def test_within_one_number_of_workers_reruns_are_equal_to_the_bit(runs):
    first, again = (result_of(runs["lenet5", 2, repetition]) for repetition in (0, 1))
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["test_accuracy"] == again["test_accuracy"]


def started(folder: Path, name: str, *extra: object, **env: str) -> subprocess.Popen:
    arguments = ("train", "--workers", 2, *WORKERS, *SETTINGS, "--name", name, *extra)
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(command(*arguments), cwd=folder, env=environment(**env), stderr=log)


def deadly_site(trigger: Path) -> dict[str, str]:
    """The environment in which a worker dies or hangs as the file says."""
    root = Path(__file__).parents[2]
    return {
        "CHAOS_TRIGGER": str(trigger),
        "PYTHONPATH": f"{root}/tests/campaigns/chaos_site:{root}",
    }


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen) -> None:
    """Waits until a run has written something; fails when the driver ends first."""
    while not condition():
        assert driver.poll() is None, "the run ended before it could be disturbed"
        time.sleep(0.01)


def expect_result(driver: subprocess.Popen, folder: Path, name: str) -> dict:
    log = folder / f"{name}.log"
    assert driver.wait() == 0, log.read_text()
    return result_of(folder / "runs" / name)


def test_a_death_at_the_start_a_second_driver_and_ctrl_c_cost_nothing(runs, lenet, tmp_path):
    """A worker dies as training begins: Ray Train takes that moment for a defect of its own, and
    would give up, or leave the other worker its processor for good. Other kills are the business of
    test_chaos. What is left in the end is equal to the bit to what two workers had without any
    disturbance."""
    trigger = tmp_path / "trigger"
    trigger.write_text("kill begin 0")
    # The group fits only if the lost one gave its processors back.
    whole = ("--cpus-per-worker", 1)
    driver = started(tmp_path, "r", "--checkpoint-every", "5", *whole, **deadly_site(trigger))
    wait_for((tmp_path / "runs/r/config.json").exists, driver)
    second = lenet("train", "--workers", 2, *WORKERS, "--name", "r", cwd=tmp_path)
    assert second.returncode == 2
    (line,) = lines_of(second.stderr)
    assert f"process {driver.pid} on " in line
    wait_for(lambda: any((tmp_path / "runs/r/checkpoints").glob("step-*")), driver)
    assert not trigger.exists()
    driver.send_signal(signal.SIGINT)
    assert driver.wait() == 130
    assert "continue with: lenet train --name r" in (tmp_path / "r.log").read_text()
    result = expect_result(started(tmp_path, "r", *whole), tmp_path, "r")
    undisturbed = result_of(runs["lenet5", 2, 0])
    for key in ("weights_sha256", "best_weights_sha256", "test_accuracy"):
        assert result[key] == undisturbed[key]
    assert result["restarts"] == 1
    assert result["lost_steps"] == 0


def test_a_worker_that_hangs_or_dies_in_a_report_to_ray_costs_nothing(runs, tmp_path):
    """The others wait for it there without a limit of Ray's. The watchdogs of all end them."""
    trigger = tmp_path / "trigger"
    trigger.write_text("hang report 0")
    driver = started(tmp_path, "r", **deadly_site(trigger))
    reached = tmp_path / "runs/r/reached.json"
    wait_for(lambda: reached.exists() and json.loads(reached.read_text())["restarts"] == 1, driver)
    trigger.write_text("kill report 0")
    result = expect_result(driver, tmp_path, "r")
    assert not trigger.exists()
    assert (result["restarts"], result["lost_steps"]) == (2, 0)
    undisturbed = result_of(runs["lenet5", 2, 0])
    for key in ("weights_sha256", "best_weights_sha256", "test_accuracy"):
        assert result[key] == undisturbed[key]


def test_the_token_that_ray_makes_is_for_its_owner_alone(tmp_path):
    """Ray writes it so that all who are on the machine can read it."""
    script = "from cluster.connection import connected\nwith connected('local'): pass"
    subprocess.run(
        [sys.executable, "-c", script],
        env=environment(HOME=str(tmp_path)),
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_ray_knows_a_run_of_its_cluster(runs):
    """What its dashboard shows, without one; with one, and with metrics: test_e2e."""
    run = runs["lenet5", 2, 0]
    known, log = runs.seen[run.name]
    assert (known.name, known.status) == (run.name, "FINISHED")
    assert known.run_settings.train_loop_config["settings"]["learning_rate"] == 0.02
    loss = re.findall(r"reported: epoch 1, loss ([0-9.]+), accuracy ", log)
    assert list(map(float, loss)) == [pytest.approx(history(run)[0]["loss"], rel=1e-5)]


@pytest.mark.long
def test_a_stop_before_anyone_trains_is_a_stop(tmp_path, mnist):
    """Workers that can't answer are given up, and Ray Train with them."""
    driver = started(tmp_path, "r")
    wait_for(lambda: len(training_workers(driver.pid)) == 2, driver)
    for worker in training_workers(driver.pid):
        worker.suspend()
    driver.send_signal(signal.SIGINT)
    assert driver.wait() == 130
    said = (tmp_path / "r.log").read_text().splitlines()
    assert "stopped while no worker was training; continue with: lenet train" in said[-1]


ASKED_TO_STOP = """
import os, signal
from cluster.connection import connected
from job.training.progress import Silent
from job.training.signals import stop_on_signal
with stop_on_signal(Silent()) as stop, connected("local"):
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop() == signal.SIGTERM
"""


def test_a_request_to_stop_is_heard_though_ray_would_rather_exit():
    """`ray job stop` asks with SIGTERM, for which Ray sets a handler of its own."""
    done = subprocess.run([sys.executable, "-c", ASKED_TO_STOP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_killed_with_its_checkpoints_in_object_storage_it_goes_on(runs, s3, store, lenet, tmp_path):
    where = ("--workers", 2, *WORKERS, *SETTINGS, "--name", "r", "--storage", s3)
    place = open_storage(s3).at("r")
    driver = subprocess.Popen(
        command("train", *where, "--checkpoint-every", "5"),
        cwd=tmp_path,
        env=environment(**store.env()),
        stderr=subprocess.DEVNULL,
    )
    while not [name for name in place.at("checkpoints").list() if name.startswith("step-")]:
        assert driver.poll() is None, "the run ended before it could be disturbed"
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)
    (tmp_path / "elsewhere").mkdir()
    done = lenet("train", *where, cwd=tmp_path / "elsewhere", **store.env())
    assert done.returncode == 0, done.stderr
    result = json.loads(place.read("result.json", limit=1 << 20))
    assert result["weights_sha256"] == result_of(runs["lenet5", 2, 0])["weights_sha256"]
    assert result["restarts"] == 1


BAD = {
    "more workers than there is room for": (["--workers", "5000"], "there is room for"),
    "more GPUs than there are": (
        ["--workers", "2", "--gpus-per-worker", "1"],
        "workers of 1 CPUs and 1 GPUs: there is room for 0",
    ),
    "a dead address": (["--address", "127.0.0.1:1"], "no Ray cluster answers there"),
    "an address that is none": (["--address", "nonsense"], "give auto, local or HOST:PORT"),
    "no workers": (["--workers", "0"], "a number of 1 or more"),
    "a range upside down": (["--workers", "4:2"], "a number of 1 or more"),
    "negative failures": (["--max-failures", "-1"], "between 0 and"),
    "no patience": (["--hang-timeout", "0"], "at least 1"),
}


def test_a_cluster_of_another_version_is_refused_in_one_line(lenet, tmp_path, mnist):
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray._raylet import GcsClient

    with Nodes(tmp_path / "nodes", 1) as nodes:
        said = GcsClient(address=nodes.cluster.address)
        place = {"key": CLUSTER_METADATA_KEY, "namespace": KV_NAMESPACE_CLUSTER}
        metadata = json.loads(said.internal_kv_get(**place))
        metadata["ray_version"] = "2.59.0"
        said.internal_kv_put(value=json.dumps(metadata).encode(), overwrite=True, **place)
        done = lenet("train", "--address", nodes.cluster.address, "--name", "r", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert "2.59.0" in line
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def killed(monkeypatch) -> Iterator[None]:
    """A cluster of this machine that left its address behind, which Ray would try for minutes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        Path(short, "ray").mkdir()
        Path(short, "ray", "ray_current_cluster").write_text("127.0.0.1:1")
        monkeypatch.setenv("RAY_TMPDIR", short)
        yield


def test_a_cluster_that_was_killed_is_not_waited_for(killed, monkeypatch, capsys, tmp_path, mnist):
    # What other tests run at the same time is another matter.
    monkeypatch.setattr(ray_private, "runs_here", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert run_command(["train", "--address", "auto", "--workers", "5000"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the last cluster of this machine is gone (127.0.0.1:1)" in line


def test_nor_where_another_is_started_instead(killed, lenet, tmp_path, mnist):
    """Which is found to be too small."""
    done = lenet("train", "--workers", "5000", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert "there is room for" in line


def test_an_address_in_the_environment_is_not_waited_for_either(lenet, tmp_path, mnist):
    done = lenet("train", "--workers", "2", cwd=tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert "RAY_ADDRESS '127.0.0.1:1': no Ray cluster answers there" in line


def test_a_folder_too_long_for_rays_sockets_is_named(lenet, tmp_path, mnist):
    long = str(tmp_path / ("x" * 90))
    done = lenet("train", "--workers", "2", cwd=tmp_path, RAY_TMPDIR=long)
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert f"RAY_TMPDIR '{long}': is too long for Ray's sockets; name a folder of at most" in line


@pytest.mark.parametrize("case", BAD)
def test_what_the_cluster_can_not_do_is_said_in_one_line(case, lenet, tmp_path, mnist):
    arguments, why = BAD[case]
    local = [] if "--address" in arguments else ["--address", "local"]
    done = lenet("train", *local, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert arguments[-2] in line or arguments[0] in line
    assert why in line
    assert not any(tmp_path.iterdir())


def test_a_diverging_run_is_not_tried_again(lenet, tmp_path, mnist):
    done = lenet(
        *("train", "--workers", "2", *WORKERS, *SETTINGS, "--name", "r"),
        *("--model", "ffnn", "--optimizer", "sgd", "--learning-rate", "100"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "lower --learning-rate" in done.stderr
    assert "continuing" not in done.stderr
    assert json.loads((tmp_path / "runs/r/config.json").read_text())
    assert not (tmp_path / "runs/r/result.json").exists()


@pytest.fixture(autouse=True)
def nothing_stays_behind(store) -> Iterator[None]:
    """Ends what a failed test left running, below this process only; the store was there before."""
    here = psutil.Process(os.getpid())
    before = set(here.children(recursive=True))
    yield
    for process in set(here.children(recursive=True)) - before:
        process.kill()
