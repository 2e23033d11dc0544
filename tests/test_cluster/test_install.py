"""Which locks are installed: NVIDIA's libraries where a GPU answers, and never where they are of no
use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.dockerfile import read_stages

ROOT = Path(__file__).parents[2]
GPU_LOCK = "-r requirements-gpu.lock"


@pytest.fixture
def machine(tmp_path):
    """A copy of what installs, and commands of another machine before those of this one."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-gpu.lock"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster")
    (tmp_path / "bin").mkdir()

    def answers(command: str, script: str) -> None:
        path = tmp_path / "bin" / command
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(*command: str, **env: str) -> subprocess.CompletedProcess:
        place = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **env}
        return subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True)

    answers("nvidia-smi", "exit 9")
    answers("uname", "echo x86_64")
    run.answers = answers
    return run


def test_make_takes_nvidias_libraries_where_a_gpu_answers(machine):
    def planned(*given: str) -> str:
        done = machine("make", "--dry-run", "venv", *given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "-r requirements.lock" in planned()
    assert GPU_LOCK not in planned()
    assert GPU_LOCK in planned("GPU=1")
    machine.answers("nvidia-smi", "echo 'GPU 0: NVIDIA L4 (UUID: GPU-1c2d)'")
    # The tests' packages come along.
    assert f"--require-hashes -r requirements.lock {GPU_LOCK}" in planned()
    assert GPU_LOCK not in planned("GPU=0")
    # Whoever changes his mind is not told that all is installed.
    assert planned().split("touch ")[1] != planned("GPU=0").split("touch ")[1]


@pytest.mark.parametrize(
    "command", [("make", "venv"), ("bash", "cluster/install.sh", "A=b")], ids=lambda it: it[0]
)
def test_they_are_refused_where_tensorflow_has_no_cuda(machine, tmp_path, command):
    machine.answers("nvidia-smi", "exit 0")
    machine.answers("uname", "echo aarch64")
    done = machine(*command)
    assert done.returncode != 0
    assert "TensorFlow's wheel for aarch64 is built without CUDA" in done.stderr
    assert "GPU=0" in done.stderr
    assert not (tmp_path / ".venv").exists()
    assert not (tmp_path / "lenet-venv").exists()


def test_a_node_takes_what_it_is_told_to(machine, tmp_path):
    """Without a Python nothing is installed; the lock has been chosen by then."""
    machine.answers("sha256sum", "cat | wc -c")
    machine.answers("cat", 'echo "$@" >> "$HOME/read"; exec /bin/cat "$@"')
    machine.answers("python3.11", "exit 1")
    machine.answers("sudo", "exit 1")

    def locks(**env: str) -> str:
        (tmp_path / "read").unlink(missing_ok=True)
        machine("bash", "cluster/install.sh", **env)
        return (tmp_path / "read").read_text()

    assert "requirements-cluster.lock" in locks()
    assert "requirements-gpu.lock" in locks(GPU="1")
    machine.answers("nvidia-smi", "exit 0")
    assert "requirements-gpu.lock" in locks()
    assert "requirements-cluster.lock" in locks(GPU="0")


@pytest.mark.parametrize("lock", ["requirements-gpu.lock", "requirements-cluster.lock"])
def test_the_image_refuses_them_too(machine, lock):
    (step,) = [
        text
        for word, text in read_stages((ROOT / "Dockerfile").read_text())[0].steps
        if word == "RUN" and "venv" in text
    ]
    check = step.partition(" && python3")[0]
    machine.answers("uname", "echo aarch64")
    done = machine("sh", "-c", check, LOCK=lock)
    assert (done.returncode == 1) is (lock == "requirements-gpu.lock")
    assert ("is built without CUDA" in done.stderr) is (lock == "requirements-gpu.lock")
