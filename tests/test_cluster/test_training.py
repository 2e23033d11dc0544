"""A training as a call from Python: `cluster.train`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("workers", [1, 2])
def test_it_returns_what_the_run_left_and_prints_nothing(workers, at_hand, tmp_path):
    settings = json.dumps({**FEW, "workers": workers})
    done = subprocess.run(
        [sys.executable, "-c", CALL, settings],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(Path(cluster.__file__).parents[1])),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    folder = tmp_path / "runs" / "r"
    result, epochs, where = json.loads((tmp_path / "said").read_text())
    assert result == result_of(folder)
    assert (epochs, tmp_path / where) == ([1, 2], folder)


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
