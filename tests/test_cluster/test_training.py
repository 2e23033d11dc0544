"""A training as a call from Python: `cluster.train`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

import cluster
from job.errors import InputError
from tests.kit.commands import environment, result_of, tree

CALL = """
import json, sys
from cluster import train
run = train(**json.loads(sys.argv[1]))
with open("said", "w") as stream:
    json.dump([run.result, [row.epoch for row in run.history], run.folder], stream)
"""
FEW = {"model": "ffnn", "limit_train": 600, "epochs": 2, "batch_size": 50, "name": "r"}


DEAD = "http://127.0.0.1:9"
HERE = {"PYTHONPATH": str(Path(cluster.__file__).parents[1])}


@pytest.mark.parametrize(("workers", "device"), [(1, "cpu"), (1, "gpu"), (2, "cpu")])
def test_it_returns_what_the_run_left_and_prints_nothing(workers, device, request, tmp_path, mnist):
    gpu = request.getfixturevalue("stand_in_gpu").env() if device == "gpu" else {}
    # As batch systems name it: too long for Ray's sockets.
    scratch = tmp_path / ("scratch-of-a-job-" * 5)
    scratch.mkdir()
    world = {"TMPDIR": str(scratch), "http_proxy": DEAD, "https_proxy": DEAD}
    for name in ("job", "cluster", "tuning"):
        # What the user calls so is none of our business, on Ray's workers either.
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('somebody imported me')")
    asked = environment(**HERE, **gpu, **world)
    # Under `uv run` Ray would start workers in a copy of the folder, without what is installed.
    uv = [find_uv_bin(), "run", "--no-project", "--offline"] if workers > 1 else []
    done = subprocess.run(
        [*uv, sys.executable, "-P", "-c", CALL, json.dumps({**FEW, "workers": workers})],
        cwd=tmp_path,
        env={k: v for k, v in asked.items() if k != "RAY_TMPDIR"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    folder = tmp_path / "runs" / "r"
    result, epochs, where = json.loads((tmp_path / "said").read_text())
    assert result == result_of(folder)
    assert (epochs, tmp_path / where) == ([1, 2], folder)
    assert result["device"].startswith(device)


INTERRUPTED = """
import json, signal, sys
import ray
from cluster import train
from job.training.progress import Silent

class CtrlC(Silent):
    def epoch(self, row, epochs, is_best):
        signal.raise_signal(signal.SIGINT)

settings = json.loads(sys.argv[1])
# Whoever started the tests may ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
try:
    train(**settings, epochs=9, progress=CtrlC())
except KeyboardInterrupt:
    # There are no processors for others while its workers live.
    print(train(**{**settings, "name": "other"}, epochs=1).result["epochs"])
"""


@pytest.mark.long
def test_ctrl_c_in_python_ends_its_workers(tmp_path, mnist):
    few = {key: value for key, value in FEW.items() if key != "epochs"}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, json.dumps({**few, "workers": 2})],
        cwd=tmp_path,
        env=environment(**HERE),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert not (tmp_path / "runs/r/result.json").exists()


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"epoch": 3}, "--epoch"), ({"epochs": 0}, "--epochs"), ({"workers": "2:1"}, "--workers")],
)
def test_what_it_can_not_use_is_named_and_leaves_nothing(settings, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        cluster.train(**settings)
    assert caught.value.field == field
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("package", ["job", "cluster", "tuning"])
def test_what_is_public_is_there_and_imported_when_it_is_asked_for(package):
    script = (
        f"import sys, {package} as package\n"
        "print(bool({'tensorflow', 'keras', 'ray'} & sys.modules.keys()))\n"
        "print([name for name in package.__all__ if not hasattr(package, name)])\n"
        "print(hasattr(package, 'nothing_of_that_name'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == ["False", "[]", "False"], done.stderr
