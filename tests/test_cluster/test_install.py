"""Which locks are installed: NVIDIA's libraries where a GPU answers, and never where they are of no
use."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cluster.packages import settings, uv_environment
from tests.lab.dockerfile import read_stages

ROOT = Path(__file__).parents[2]
GPU_LOCK = "requirements-gpu.lock"


@pytest.fixture
def machine(tmp_path):
    """A copy of what installs, and commands of another machine before those of this one."""
    for path in (ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("requirements*.lock")):
        shutil.copy(path, tmp_path)
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

    assert "cluster/packages.py requirements.lock" in planned()
    assert GPU_LOCK not in planned()
    assert GPU_LOCK in planned("GPU=1")
    machine.answers("nvidia-smi", "echo 'GPU 0: NVIDIA L4 (UUID: GPU-1c2d)'")
    assert f"cluster/packages.py requirements.lock {GPU_LOCK}" in planned()
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


def planned_extras(machine, *given: str) -> list[str]:
    """The locks that `make` would install, in order."""
    done = machine("make", "--dry-run", *given)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in re.findall(r"packages\.py (.+)", done.stdout)]


def test_training_takes_no_extra_and_tests_take_all(machine):
    assert planned_extras(machine, "train") == ["requirements.lock"]
    found = planned_extras(machine, "test")
    extras = ("report", "baselines", "optuna", "trackers", "export", "dev")
    # In one call.
    all_of_them = " ".join(["requirements.lock", *(f"requirements-{e}.lock" for e in extras)])
    assert found == ["requirements.lock", all_of_them]


def test_extras_are_added_to_what_is_there_and_stay(machine, tmp_path):
    given = ("venv", "EXTRAS=report export")
    added = [f"requirements.lock requirements-{extra}.lock" for extra in ("export", "report")]
    assert planned_extras(machine, *given) == ["requirements.lock", *added]
    (tmp_path / ".venv").mkdir()
    for stamp in (".installed", ".extra-export", ".extra-report"):
        (tmp_path / ".venv" / stamp).touch()
    assert planned_extras(machine, *given) == planned_extras(machine, "train") == []
    assert planned_extras(machine, "venv", "EXTRAS=optuna") == [
        "requirements.lock requirements-optuna.lock"
    ]
    # Later than what is installed.
    (tmp_path / "requirements.lock").touch()
    assert planned_extras(machine, "train") == ["requirements.lock", *added]


def test_who_has_all_keeps_all(machine, tmp_path):
    (tmp_path / ".venv").mkdir()
    for stamp in (".installed", ".extra-export", ".extra-report", ".whole"):
        (tmp_path / ".venv" / stamp).touch()
    for goal in (["train"], ["test"], ["venv", "EXTRAS=optuna"]):
        assert planned_extras(machine, *goal) == []
    (tmp_path / "requirements.lock").touch()
    _, all_of_them = planned_extras(machine, "train")
    assert all_of_them.count(".lock") == 7


def test_an_unknown_extra_is_refused(machine):
    done = machine("make", "venv", "EXTRAS=reprot")
    assert done.returncode == 2
    assert "EXTRAS: reprot is none of report baselines optuna trackers export dev" in done.stderr


LISTED = r"""
:env:.default-timeout='180'
:env:.find-links='/wheels https://a.example/links'
global.cert='/etc/certificates.pem'
global.extra-index-url='\nfile:///one\nhttps://user:secret@b.example/simple'
global.find-links='/others'
global.index-url='https://c.example/simple'
install.index-url='https://d.example/simple'
download.index-url='https://e.example/simple'
"""


def test_uv_is_told_what_pip_knows():
    told = uv_environment(settings(LISTED), {"PATH": "/bin", "UV_HTTP_TIMEOUT": "7"})
    assert told == {
        **{"PATH": "/bin", "UV_HTTP_TIMEOUT": "7", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        "UV_FIND_LINKS": "/wheels,https://a.example/links",
        "SSL_CERT_FILE": "/etc/certificates.pem",
        "UV_INDEX": "file:///one https://user:secret@b.example/simple",
        "UV_DEFAULT_INDEX": "https://d.example/simple",
    }
    assert settings("") == {}


WHEEL_HASH = "0" * 64


@pytest.mark.parametrize("hash_is_right", [True, False])
@pytest.mark.parametrize("has_uv", [True, False])
def test_what_is_installed_has_the_hash_of_its_lock(has_uv, hash_is_right, tmp_path):
    """By uv, and by pip where uv can't be had."""
    venv, wheels = tmp_path / "venv", tmp_path / "wheels"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    wheels.mkdir()
    wheel = made_wheel(wheels)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest() if hash_is_right else WHEEL_HASH
    lock = tmp_path / "some.lock"
    lock.write_text(f"tiny==1.0 --hash=sha256:{found}\n")
    uv_lock = tmp_path / "requirements-uv.lock"
    uv_lock.write_text((ROOT / "requirements-uv.lock").read_text() if has_uv else "")
    (tmp_path / "cluster").mkdir()
    shutil.copy(ROOT / "cluster/packages.py", tmp_path / "cluster")
    python = venv / "bin/python"
    done = subprocess.run(
        [python, tmp_path / "cluster/packages.py", lock],
        env={**os.environ, "PIP_FIND_LINKS": f"{wheels} {os.environ.get('PIP_FIND_LINKS', '')}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == hash_is_right, done.stderr
    assert ("pip goes on" in done.stderr) == (not has_uv or not hash_is_right)
    imported = subprocess.run([python, "-B", "-c", "import tiny"], capture_output=True)
    assert (imported.returncode == 0) == hash_is_right
    # By whoever installs: not every process may write what it compiles.
    assert bool(list(venv.glob("lib/*/site-packages/__pycache__/tiny.*"))) == hash_is_right


def made_wheel(folder: Path) -> Path:
    """A wheel of a module `tiny`."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", about)
        tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("tiny-1.0.dist-info/WHEEL", tags)
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return path
