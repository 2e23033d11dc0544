"""`lenet runs`: what there is, how it stands, and what may go."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.commands import command, environment, result_of


@pytest.fixture
def place(finished_run, tmp_path) -> Path:
    """A finished run, one that was cut off, and one that can't be read."""
    for name in ("done", "cut-off", "broken"):
        shutil.copytree(finished_run, tmp_path / "runs" / name)
    (tmp_path / "runs/cut-off/result.json").unlink()
    (tmp_path / "runs/broken/config.json").write_text("{")
    return tmp_path


def runs(place: Path, *arguments: object, answer: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        command("runs", *arguments),
        cwd=place,
        env=environment(),
        input=answer,
        capture_output=True,
        text=True,
    )


def test_every_run_is_listed_with_how_it_stands(place, finished_run):
    # Megabytes that a list has no use for.
    for arrays in (place / "runs/cut-off/checkpoints").rglob("arrays.safetensors"):
        arrays.write_bytes(b"")
    listed = {run["name"]: run for run in json.loads(runs(place, "--json").stdout)}
    states = {name: run["state"] for name, run in listed.items()}
    assert states == {"done": "finished", "cut-off": "stopped", "broken": "unreadable"}
    result = result_of(finished_run)
    assert listed["done"]["test_accuracy"] == result["test_accuracy"]
    assert listed["cut-off"]["test_accuracy"] is None
    assert listed["cut-off"]["val_accuracy"] == result["val_accuracy"]
    assert listed["done"]["size"] > 1_000_000
    assert "files" not in listed["done"]


def test_one_run_is_shown_with_its_checkpoints(place):
    (shown,) = json.loads(runs(place, "done", "--json").stdout)
    assert shown["files"]["result.json"] > 0
    assert shown["config"]["name"] == "smoke"
    assert len(shown["checkpoints"]) == 2
    text = runs(place, "done").stdout
    assert "checkpoint step" in text
    assert "result.json" in text


def test_a_run_that_is_not_there(place):
    done = runs(place, "nowhere")
    assert done.returncode == 2
    assert "no such run" in done.stderr


def test_a_checkpoint_is_pinned_and_unpinned(place):
    def pinned() -> list[int]:
        (shown,) = json.loads(runs(place, "done", "--json").stdout)
        return [c["step"] for c in shown["checkpoints"] if c["pinned"]]

    (shown,) = json.loads(runs(place, "done", "--json").stdout)
    step = shown["checkpoints"][0]["step"]
    assert pinned() == []
    assert runs(place, "done", "--pin", step).returncode == 0
    assert pinned() == [step]
    assert runs(place, "done", "--unpin", step).returncode == 0
    assert pinned() == []
    wrong = runs(place, "done", "--pin", 1)
    assert wrong.returncode == 2
    assert f"STEP '1': done has checkpoints of {step}" in wrong.stderr
    assert runs(place, "--pin", 1).returncode == 2


def test_what_a_crash_left_is_removed_when_the_user_agrees(place):
    left = place / "runs/cut-off/checkpoints/step-00000007-0123abcd"
    left.mkdir()
    kept = sorted((place / "runs/cut-off/checkpoints").glob("step-*"))
    refused = runs(place, "--clean", answer="n\n")
    assert f"cut-off: {left.name}" in refused.stdout
    assert left.exists()
    assert runs(place, "--clean", answer="y\n").returncode == 0
    assert sorted((place / "runs/cut-off/checkpoints").glob("step-*")) == [
        path for path in kept if path != left
    ]
    assert runs(place, "--clean").stdout == "nothing to remove\n"
