"""A cluster of simulated nodes: real Ray processes on this machine, which can be added, drained and
killed while a run is on them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from cluster.connection import FAULT_DETECTION, TRAIN_SETTINGS
from tests.kit.commands import command, environment

POLL_SECONDS = 0.02
# Longer than any attempt takes to start or to be given up, on a machine that is busy with others.
PATIENCE_SECONDS = 180.0


class Nodes:
    """A head without room for workers, and nodes of one size.

    Args:
        folder: Runs are kept in its `runs`, drivers' output in `NAME.log`.
        count: Nodes to begin with.
        cpus: Processors of each node.
        gpus: GPUs of each node, as Ray is told.
        extra: Environment of nodes and drivers.
    """

    def __init__(
        self, folder: Path, count: int, *, cpus: int = 1, gpus: int = 0, **extra: str
    ) -> None:
        self.folder = folder
        self.count = count
        self.size = {"num_cpus": cpus, "num_gpus": gpus}
        self.extra = {**FAULT_DETECTION, **TRAIN_SETTINGS, **extra}
        self.nodes: list[Any] = []
        self.drivers: list[subprocess.Popen] = []

    def __enter__(self) -> Nodes:
        from ray.cluster_utils import Cluster

        self._before = dict(os.environ)
        self._others = set(processes_under(os.getpid()))
        # Ray's node processes inherit this process' environment.
        os.environ.update(self.extra)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(self.count):
            self.add()
        return self

    def __exit__(self, *_: object) -> None:
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        # Not this process' children any more where a raylet was killed.
        left = set(processes_under(os.getpid())) - self._others
        self.cluster.shutdown()
        for process in left:
            if alive(process):
                process.kill()
        os.environ.clear()
        os.environ.update(self._before)

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(**self.size))

    def lose(self, index: int = -1) -> None:
        """Kills a node, which has no time to say farewell."""
        self.cluster.remove_node(self.nodes.pop(index), allow_graceful=False)

    def drain(self, index: int, seconds: float) -> None:
        """Tells Ray that a node will be taken away, as a cloud's notice does."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        accepted, why = GcsClient(address=self.cluster.address).drain_node(
            self.nodes[index].node_id,
            autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION,
            "a test takes the node away",
            int((time.time() + seconds) * 1000),
        )
        assert accepted, why

    def start(self, name: str, *arguments: object) -> subprocess.Popen:
        """Runs `lenet train` on the cluster."""
        where = ("--address", self.cluster.address, "--storage", self.folder / "runs")
        with (self.folder / f"{name}.log").open("a") as log:
            driver = subprocess.Popen(
                command("train", "--name", name, *arguments, *where),
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )
        self.drivers.append(driver)
        return driver

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def notes(self, name: str) -> dict[str, int]:
        """How far a run got, as it says itself; zeros before its first step and after its end."""
        try:
            return json.loads((self.folder / "runs" / name / "reached.json").read_text())
        except FileNotFoundError:
            return {"step": 0, "restarts": 0, "lost_steps": 0}

    def wait(self, driver: subprocess.Popen, condition: Callable[[], bool]) -> bool:
        """Waits for a condition; False when the driver ends first."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if driver.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened for {PATIENCE_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        return True

    def reach(self, driver: subprocess.Popen, name: str, step: int) -> None:
        """Waits until a run has trained so far."""
        reached = self.wait(driver, lambda: self.notes(name)["step"] >= step)
        assert reached, f"ended before step {step}: {self.log(name)}"

    def result(self, driver: subprocess.Popen, name: str) -> dict[str, Any]:
        """Waits for a run's end."""
        code = driver.wait()
        assert code == 0, f"{name} ended with {code}: {self.log(name)}"
        # Of a worker that was sent an error of TensorFlow's: its bits are others.
        assert "imported before" not in self.log(name), self.log(name)
        return json.loads((self.folder / "runs" / name / "result.json").read_text())


def processes_under(pid: int | None) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def training_workers(pid: int) -> list[psutil.Process]:
    """The processes below this one in which Ray Train runs workers."""
    return called("RayTrainWorker", pid)


def called(title: str, pid: int | None = None) -> list[psutil.Process]:
    """The processes below one, or below this one, that live and have this in their command line."""
    return [p for p in processes_under(pid) if alive(p) and title in _title(p)]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
