"""What requirements.lock installs is enough to train; what it leaves out is asked for by name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

from job.extras import EXTRAS
from tests.kit.commands import environment

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "tests/test_runs/kept/digits")
# Runs `lenet` where packages that no lock but requirements.lock has can't be imported.
WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys({hidden!r}))
from tuning.cli import main
main(sys.argv[1:])
"""


def one_spelling(name: str) -> str:
    """A distribution's name as locks spell it (PEP 503); installed ones may be spelt otherwise."""
    return re.sub(r"[-_.]+", "-", name).lower()


# The same where the project is a folder on the path, as on a machine that wheels were carried to.
NOT_INSTALLED = """
import importlib.metadata, sys
found = importlib.metadata.Distribution.from_name
def without(name):
    if name == "lenet-on-ray":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.Distribution.from_name = without
from tuning.cli import main
main(sys.argv[1:])
"""


def locked(lock: str) -> set[str]:
    """The packages of a lock."""
    names = re.findall(r"^([\w.-]+)==", (ROOT / lock).read_text(), re.M)
    return {one_spelling(name) for name in names}


def hashes(lock: str) -> dict[str, int]:
    """How many files of each package a lock allows."""
    entries = re.findall(r"^([\w.-]+)==(.*(?:\n .*)*)", (ROOT / lock).read_text(), re.M)
    return {one_spelling(name): entry.count("--hash=") for name, entry in entries}


def hidden() -> set[str]:
    """Modules at the top that come with extras only."""
    base = locked("requirements.lock") | {"lenet-on-ray"}
    return {
        module
        for module, packages in packages_distributions().items()
        if not base & {one_spelling(package) for package in packages}
    }


def lenet(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    script = WITHOUT_EXTRAS.format(hidden=hidden())
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


def test_what_is_hidden_is_what_extras_bring():
    assert {module for modules in EXTRAS.values() for module in modules} <= hidden()
    assert not hidden() & {"tensorflow", "keras", "ray", "numpy", "scipy", "matplotlib", "rich"}


def test_extras_are_those_of_pyproject():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = extras["optional-dependencies"]
    brought_by = packages_distributions()
    for extra, modules in EXTRAS.items():
        named = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}
        assert named == {one_spelling(brought_by[module][0]) for module in modules}
        assert named <= locked(f"requirements-{extra}.lock")


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_what_is_built_for_one_python_is_locked_for_each(lock):
    """Of a wheel like cp311-cp311 there are three, for Python 3.11, 3.12 and 3.13."""
    tag = re.compile(r"^Tag: cp3\d+-cp3\d+-", re.M)
    built = {
        one_spelling(one.name)
        for one in distributions()
        if tag.search(one.read_text("WHEEL") or "")
    }
    allowed = {name: count for name, count in hashes(lock).items() if name in built}
    assert {name: count for name, count in allowed.items() if count < 3} == {}


def test_a_checkout_trains_without_being_installed(tmp_path):
    train = ("train", "--model", "ffnn", "--dataset", "own", "--data", DIGITS, "--name", "r")
    command = [sys.executable, "-c", NOT_INSTALLED, *train, "--epochs", "1", "--limit-train", "96"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs/r/result.json").read_text())
    assert "lenet-on-ray" not in result["versions"]


def test_a_run_needs_no_extra(tmp_path):
    train = ("train", "--model", "ffnn", "--dataset", "own", "--data", DIGITS, "--name", "r")
    picture = ROOT / "tests/test_runs/kept/0.png"
    for arguments in (
        (*train, "--epochs", 1, "--limit-train", 96),
        ("evaluate", "r"),
        ("predict", "r", picture),
        ("runs",),
        ("doctor",),
    ):
        done = lenet(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("report", ("report", "r")),
        ("baselines", ("baselines",)),
        ("optuna", ("sweep", "--search", "optuna")),
        ("trackers", ("train", "--tracker", "tensorboard,mlflow")),
        ("trackers", ("sweep", "--tracker", "trackio")),
        ("export", ("export", ROOT / "tests/test_runs/kept/finished")),
    ],
)
def test_a_command_that_misses_its_extra_says_which(extra, arguments, tmp_path):
    done = lenet(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "which is not installed" in line
    assert f"make venv EXTRAS={extra}, or pip install" in line
    assert not any(tmp_path.iterdir())
