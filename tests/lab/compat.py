"""The oldest Ray that pyproject.toml allows, and another Python: trains in an environment of each.

    python -m tests.lab.compat [--work FOLDER]      # `make compat` is the same: 20 minutes

What runs in them are tests of this project: a two-worker training, workers killed, a short sweep.
Another Python is one of this machine's, else that of a Debian 13, made by debootstrap where this
process is root; where neither is at hand, that environment is skipped and says why. All other
packages are those of the locks.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from job.extras import EXTRAS
from tests.lab.image import ROOT, Image, base

TESTS = (
    "tests/test_cluster/test_workers.py::test_the_curve_is_that_of_one_worker",
    "tests/test_cluster/test_workers.py::"
    "test_a_death_at_the_start_a_second_driver_and_ctrl_c_cost_nothing",
    "tests/campaigns/test_chaos.py",
    "tests/test_tuning/test_sweep.py::test_the_best_validation_accuracy_wins_by_its_mean_over_seeds",
    "tests/test_tuning/test_sweep.py::test_trials_of_several_workers_are_runs_of_ray_train",
)
PYTHONS = ("3.11", "3.12", "3.13")
DEBIAN = ("trixie", "3.13")
# As everywhere: a model card reads the project's own metadata.
PROJECT = ("--no-build-isolation", "--editable")
PYTEST = ("python", "-m", "pytest", "-q", "--durations=0", *TESTS)


def project() -> dict[str, object]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def oldest_ray() -> str:
    """The oldest version of Ray that is allowed."""
    (bound,) = (line for line in project()["dependencies"] if line.startswith("ray["))
    return re.search(r">=\s*([\d.]+)", bound)[1]


def pins(without: str = "") -> str:
    """The versions that `make test` takes, with their markers and without hashes: other versions
    and other Pythons have other files."""
    names = ("", *(f"-{extra}" for extra in (*EXTRAS, "dev")))
    text = "".join((ROOT / f"requirements{name}.lock").read_text() for name in names)
    pinned = dict.fromkeys(re.findall(r"^([\w.-]+==[^\\\n]*?)\s*\\?$", text, re.M))
    return "".join(f"{line}\n" for line in pinned if not line.startswith(f"{without}=="))


def other_python() -> str | None:
    """Another Python of this machine that is allowed, and that works."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in PYTHONS:
        found = version != here and shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def install(python: str, folder: Path, *, ray: str | None = None) -> Path:
    """Makes an environment with the versions of the lock, but for Ray's where one is given, and
    returns its `bin`. Raises CalledProcessError."""
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(
        pins(without="ray" if ray else "") + (f"ray[train,tune]=={ray}\n" if ray else "")
    )
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--requirement", wanted], check=True)
    subprocess.run([*pip, *PROJECT, ROOT], check=True)
    return folder / "bin"


def tested(name: str, bin: Path) -> bool:
    """Runs the tests with the programs of an environment."""
    print(f"\n{name}", flush=True)
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return subprocess.run([bin / PYTEST[0], *PYTEST[1:]], cwd=ROOT, env=env).returncode == 0


def tested_in_debian(work: Path) -> bool:
    """Runs the tests with the Python of a Debian. Its processes and mounts end with this one."""
    suite, version = DEBIAN
    print(f"\nPython {version} of Debian {suite}", flush=True)
    image = Image(base(work, suite, packages="procps,iproute2,g++"), {})
    image.mount_system()
    folder = image.root / "project"
    shutil.rmtree(folder, ignore_errors=True)
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in names.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "pins.txt").write_text(pins())
    image.folder = "/project"
    venv = "/project/.venv"
    image.run(["python3", "-m", "venv", venv], building=True)
    pip = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--no-deps"]
    image.run([*pip, "--requirement", "pins.txt"], building=True)
    image.run([*pip, *PROJECT, "."], building=True)
    image.environment |= {
        "PATH": f"{venv}/bin:{image.environment['PATH']}",
        "PYTHONPATH": "/project",
    }
    from job.data.cache import cache_folder

    # What runs has no network.
    cached = cache_folder("mnist").parent
    there = image.root / "root" / ".cache" / cached.name
    shutil.copytree(cached, there, dirs_exist_ok=True)
    try:
        image.run(list(PYTEST))
    except subprocess.CalledProcessError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "compat", help="some 8 GB")
    work = parser.parse_args().work.resolve()
    if os.geteuid() == 0 and "LENET_COMPAT_NAMESPACE" not in os.environ:
        os.environ["LENET_COMPAT_NAMESPACE"] = "1"
        alone = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]
        alone += [
            "--kill-child",
            "--mount-proc",
            sys.executable,
            "-m",
            __spec__.name,
            *sys.argv[1:],
        ]
        os.execvp(alone[0], alone)
    work.mkdir(parents=True, exist_ok=True)
    from job.data.sources import obtain

    for name in ("mnist", "fashion-mnist"):
        obtain(name)
    ray = oldest_ray()
    outcome = {f"Ray {ray}": tested(f"Ray {ray}", install(sys.executable, work / "ray", ray=ray))}
    python = other_python()
    if python:
        outcome[python] = tested(python, install(python, work / "python"))
    elif os.geteuid() == 0 and shutil.which("debootstrap"):
        outcome[f"Python {DEBIAN[1]}"] = tested_in_debian(work)
    else:
        print("skipped: no other Python here, and a Debian's needs root and debootstrap")
    for name, passed in outcome.items():
        print(f"{name}: {'passed' if passed else 'FAILED'}")
    sys.exit(not all(outcome.values()))


if __name__ == "__main__":
    main()
