"""`lenet runs`: what there is, how it stands, and what may go."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from job.errors import InputError
from job.runs.listing import delete as delete_run
from job.runs.listing import list_runs
from job.storage.disk import LocalStorage
from job.storage.open import open_storage
from tests.kit.commands import command, environment, result_of, tree


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
    assert f"cut-off: {left.name}" in refused.stderr
    assert refused.stdout == ""
    assert left.exists()
    done = runs(place, "--clean", "--json", answer="y\n")
    assert json.loads(done.stdout) == {"removed": [f"cut-off/{left.name}"]}
    assert sorted((place / "runs/cut-off/checkpoints").glob("step-*")) == [
        path for path in kept if path != left
    ]
    assert runs(place, "--clean").stderr.endswith("nothing to remove\n")


def test_a_list_is_sorted_and_filtered(place):
    document = json.loads((place / "runs/cut-off/config.json").read_text())
    document["config"]["seed"] = 9
    (place / "runs/cut-off/config.json").write_text(json.dumps(document))

    def names(*arguments: str) -> list[str]:
        done = runs(place, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [run["name"] for run in json.loads(done.stdout)]

    assert names("--sort", "name") == ["broken", "cut-off", "done"]
    # What is not known comes last.
    assert names("--sort", "test_accuracy")[0] == "done"
    assert names("--filter", "state=finished") == ["done"]
    assert names("--filter", "seed=9") == ["cut-off"]
    # As a value of the setting, not as its letters; nothing behind it finds what is not set.
    assert names("--filter", "learning_rate=5e-2", "--filter", "xla=False") != []
    assert names("--filter", "patience=", "--filter", "state=finished") == ["done"]
    assert names("--filter", "test-accuracy=", "--sort", "name") == ["broken", "cut-off"]
    assert names("--filter", "batch-size=32", "--filter", "state=finished") == ["done"]
    for option, value, why in (
        ("--sort", "tset_accuracy", "did you mean 'test_accuracy'?"),
        ("--filter", "batchsize=3", "did you mean 'batch_size'?"),
        ("--filter", "done", "give FIELD=VALUE"),
        ("--filter", "batch-size=many", "--filter 'batch-size=many': not a whole number"),
        ("--filter", "state=finishd", "unreadable; did you mean 'finished'?"),
    ):
        refused = runs(place, option, value)
        assert refused.returncode == 2
        assert why in refused.stderr
        # Before anything is read, of which it might have said something.
        assert refused.stderr.count("\n") == 1
    none = runs(place, "--filter", "seed=8")
    assert none.stdout == "none of the runs in runs has seed=8\n"


def test_a_list_fits_a_terminal_of_80_columns(place):
    long = "a-name-that-is-longer-than-any-column-of-this-list-can-be"
    (place / "runs/done").rename(place / "runs" / long)
    narrow = {**environment(), "COLUMNS": "80"}
    done = subprocess.run(command("runs"), cwd=place, env=narrow, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in done.stdout
    # Its name, in several lines, whole.
    start = next(i for i, line in enumerate(lines) if line.startswith("a-name"))
    parts = [line.split()[0] for line in lines[start:] if line.split()[0] in long]
    assert "".join(parts) == long


def test_a_run_may_be_called_by_a_beginning_but_not_to_delete_it(place):
    (shown,) = json.loads(runs(place, "cut", "--json").stdout)
    assert shown["name"] == "cut-off"
    refused = runs(place, "cut", "--delete", "--yes")
    assert refused.returncode == 2
    assert "error: RUN 'cut': no such run in runs" in refused.stderr


def test_what_a_filter_leaves_is_what_is_changed(place):
    nothing = runs(place, "done", "--filter", "state=stopped", "--pin", 1)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    some = ("done", "cut-off", "--filter", "state=stopped", "--delete", "--yes", "--json")
    assert json.loads(runs(place, *some).stdout) == {"removed": ["cut-off"]}
    assert (place / "runs/done").exists()
    both = runs(place, "done", "--delete", "--clean", "--yes")
    assert both.returncode == 2
    assert "error: --delete: goes with no other change" in both.stderr
    assert (place / "runs/done").exists()


def test_runs_are_deleted_when_the_user_agrees(place):
    assert runs(place, "--delete").returncode == 2
    assert runs(place, "done", "nowhere", "--delete", "--yes").returncode == 2
    assert "Remove" in runs(place, "done", "broken", "--delete", answer="n\n").stderr
    assert (place / "runs/done").exists()
    deleted = runs(place, "done", "broken", "--delete", "--yes")
    assert sorted(deleted.stdout.splitlines()) == ["removed broken", "removed done"]
    assert [path.name for path in (place / "runs").iterdir()] == ["cut-off"]


def test_a_run_in_training_is_not_deleted(place):
    held = open_storage(str(place / "runs")).at("done")
    with held.locked():
        refused = runs(place, "done", "--delete", "--yes")
    assert refused.returncode == 1
    assert "trains this run; it was left" in refused.stderr
    assert (place / "runs/done/result.json").exists()


def test_where_nothing_can_be_removed_all_of_a_run_is_left(place, monkeypatch):
    def refused(self):
        raise InputError("--storage", self.uri, "can't be written (Permission denied)")

    (listed,) = list_runs(str(place / "runs"), only=["done"])
    before = tree(place)
    monkeypatch.setattr(LocalStorage, "probe", refused)
    with pytest.raises(InputError, match="can't be written"):
        delete_run(listed, str(place / "runs"))
    assert tree(place) == before


class CutOffError(Exception):
    """As if the process ended there."""


@pytest.mark.parametrize("after", range(4))
def test_a_deletion_that_was_cut_off_leaves_nothing_that_looks_whole(place, after, monkeypatch):
    """Neither a finished run without its files, nor a checkpoint without its result."""
    removed = []
    delete = LocalStorage.delete

    def counted(self, path):
        if len(removed) == after:
            raise CutOffError
        removed.append(path)
        delete(self, path)

    (listed,) = list_runs(str(place / "runs"), only=["done"])
    monkeypatch.setattr(LocalStorage, "delete", counted)
    with pytest.raises(CutOffError):
        delete_run(listed, str(place / "runs"))
    monkeypatch.undo()
    (left,) = list_runs(str(place / "runs"), only=["done"])
    assert left.state == ("finished" if after == 0 else "stopped")
    assert bool(left.run.checkpoints.entries()) == (after < 2)
    assert runs(place, "done", "--delete", "--yes").returncode == 0
    assert not (place / "runs/done").exists()
