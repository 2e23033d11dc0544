"""Shared fixtures: the real data set, a trained run, an object store."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from job.data.catalogue import CATALOGUE
from job.data.files import Split
from job.data.sources import obtain
from job.data.splits import test_split, training_splits
from job.engine.accelerator import VISIBLE, has_device
from tests.kit.commands import SMOKE, Lenet, command, environment
from tests.kit.object_store import ObjectStore
from tests.kit.stand_in import stand_in_gpu  # noqa: F401  a fixture

# Tests compute on processors, and on a stand-in where they say so: what a GPU of this machine would
# compute is not what they expect. Before anything imports TensorFlow.
if has_device():
    os.environ[VISIBLE] = "-1"

# No process of `make test` finds another's Ray cluster. Ray's sockets want short paths.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    atexit.register(shutil.rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)

# Machines are shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the campaigns in their long form")
    parser.addoption("--e2e", action="store_true", help="run clusters on simulated hosts: make e2e")
    parser.addoption("--e2e-out", type=Path, help="where their wall times are written as JSON")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long form: pytest --full"))
    if not config.getoption("--e2e"):
        for item in items:
            if item.get_closest_marker("e2e"):
                item.add_marker(pytest.mark.skip(reason="needs root and minutes: make e2e"))
    # Whoever is free takes the next file, so the last ones have to be short.
    items.sort(key=lambda item: item.get_closest_marker("minutes") is None)


@pytest.fixture
def full(request) -> bool:
    """Whether campaigns run in their long form; by default they are short enough for CI."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def lenet(at_hand) -> Lenet:
    """Runs `lenet …` in a folder and returns the finished process."""

    def run(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command(*arguments), cwd=cwd, env=environment(**env), capture_output=True, text=True
        )

    return run


@pytest.fixture(scope="session")
def keep(request) -> Callable[[str, dict[str, float]], None]:
    """Keeps figures under a name in the file of --e2e-out."""
    out: Path | None = request.config.getoption("--e2e-out")

    def write(name: str, figures: dict[str, float]) -> None:
        if out:
            kept = json.loads(out.read_text()) if out.exists() else {}
            kept[name] = {key: round(value, 1) for key, value in figures.items()}
            out.write_text(json.dumps(kept, indent=1) + "\n")

    return write


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Iterator[ObjectStore]:
    """A real S3 server for the whole session; tests that kill one start their own."""
    with ObjectStore(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3(store, monkeypatch) -> str:
    """A place of its own in the object store, which this process finds as any client would."""
    for name, value in store.env().items():
        monkeypatch.setenv(name, value)
    return f"s3://{store.bucket}/{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def mnist() -> dict[str, bytes]:
    return obtain("mnist")


@pytest.fixture(scope="session")
def at_hand(mnist) -> None:
    """The data sets are in the cache: that they are fetched is no part of what a command says."""
    obtain("fashion-mnist")


@pytest.fixture(scope="session")
def splits(mnist) -> tuple[Split, Split, Split]:
    dataset = CATALOGUE["mnist"]
    return *training_splits(mnist, dataset), test_split(mnist, dataset)


@pytest.fixture(scope="session")
def finished_run(lenet, tmp_path_factory, mnist) -> Path:
    """The folder of a small finished LeNet5 run; tests read it and change copies only."""
    folder = tmp_path_factory.mktemp("finished")
    done = lenet("train", *SMOKE, "--name", "smoke", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "smoke"
    return folder / "runs" / "smoke"
