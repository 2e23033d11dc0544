"""Checkpoints are seen whole or not at all, and every byte is verified before it is used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.runs.state import EpochProgress, EpochRow, RunState
from job.storage.checkpoints import CheckpointError, CheckpointStore, Committed, retained
from job.storage.disk import LocalStorage

FILES = {"arrays.safetensors": b"a" * 1000, "state.json": b"{}"}


def store(folder: Path, digest: str = "job") -> CheckpointStore:
    return CheckpointStore(LocalStorage(folder), digest)


def test_nothing_was_ever_committed(tmp_path):
    assert store(tmp_path / "none").restore() is None
    assert not (tmp_path / "none").exists()


def test_the_newest_is_restored(tmp_path):
    for step in (5, 10):
        store(tmp_path).save(step, {**FILES, "state.json": str(step).encode()})
    restored = store(tmp_path).restore()
    assert (restored.step, restored.files["state.json"], restored.skipped) == (10, b"10", [])


def test_every_flipped_byte_is_found_and_the_previous_checkpoint_used(tmp_path):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    for path in sorted((tmp_path / "step-00000010").iterdir()):
        original = path.read_bytes()
        for position in {0, len(original) // 2, len(original) - 1}:
            spoilt = bytearray(original)
            spoilt[position] ^= 1
            path.write_bytes(spoilt)
            restored = store(tmp_path).restore()
            assert restored.step == 5
            (why,) = restored.skipped
            assert path.name in why
            assert "SHA-256" in why
        path.write_bytes(original)
    assert store(tmp_path).restore().step == 10


@pytest.mark.parametrize("damage", [Path.unlink, lambda p: p.write_bytes(p.read_bytes() * 2)])
def test_missing_and_oversized_files_are_found(tmp_path, damage):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    damage(tmp_path / "step-00000010" / "arrays.safetensors")
    assert store(tmp_path).restore().step == 5


def test_no_trustworthy_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path):
    store(tmp_path).save(5, FILES)
    (tmp_path / "step-00000005" / "state.json").write_bytes(b"{ }")
    with pytest.raises(CheckpointError, match="can be trusted"):
        store(tmp_path).restore()


def test_a_checkpoint_of_another_job_is_not_restored(tmp_path):
    store(tmp_path).save(5, FILES)
    with pytest.raises(CheckpointError, match="other settings"):
        store(tmp_path, "another").restore()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"checkpoints": []}', b"\xff"])
def test_a_spoilt_index_is_replaced_by_what_the_folders_prove(tmp_path, content, caplog):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    (tmp_path / "index.json").write_bytes(content)
    (tmp_path / "step-00000010" / "state.json").write_bytes(b"spoilt")
    assert store(tmp_path).restore().step == 5
    assert "reading the folders instead" in caplog.text


def test_a_changed_index_entry_is_noticed(tmp_path, caplog):
    store(tmp_path).save(5, FILES)
    index = tmp_path / "index.json"
    index.write_text(index.read_text().replace('"step": 5', '"step": 6'))
    assert store(tmp_path).restore().step == 5
    assert "does not match its content" in caplog.text


# The process dies at the n-th call of a function that changes the disk.
DIES = """
import os, signal, sys
from job.storage.checkpoints import CheckpointStore
from job.storage.disk import LocalStorage
import shutil
folder, deadly = sys.argv[1], int(sys.argv[2])
calls = 0
def counted(function):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
for name in ("fsync", "replace", "rename", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
shutil.rmtree = counted(shutil.rmtree)
store = CheckpointStore(LocalStorage(folder), "job")
for step in (1, 2, 3, 4):
    store.save(step, {"arrays": bytes([step]) * 99, "state": str(step).encode()})
    print(step, flush=True)
"""


def test_a_kill_at_every_write_boundary_loses_nothing_that_was_acknowledged(tmp_path):
    died = 0
    for deadly in range(1, 200):
        folder = tmp_path / str(deadly)
        done = subprocess.run(
            [sys.executable, "-c", DIES, str(folder), str(deadly)], capture_output=True, text=True
        )
        acknowledged = len(done.stdout.split())
        restored = store(folder).restore()
        if restored is None:
            assert acknowledged == 0
        else:
            # The commit may have been reached without being acknowledged, never the reverse.
            assert restored.step in (acknowledged, acknowledged + 1)
            assert restored.files["state"] == str(restored.step).encode()
            assert restored.files["arrays"] == bytes([restored.step]) * 99
        store(folder).save(5, FILES)
        assert store(folder).restore().step == 5
        store(folder).remove_orphans()
        named = {e.folder for e in store(folder).entries()}
        assert {n for n in os.listdir(folder) if n.startswith("step-")} == named
        if done.returncode == 0:
            break
        died += 1
    assert done.returncode == 0, "the loop must reach a run that was not killed"
    assert died > 30


ENTRIES = st.lists(st.none() | st.floats(0, 9), min_size=1, max_size=12).map(
    lambda losses: [
        Committed(step=step, manifest_sha256="", val_loss=loss) for step, loss in enumerate(losses)
    ]
)


@given(ENTRIES)
def test_retention_keeps_the_best_and_the_last_two(entries):
    keep, drop = retained(entries)
    assert sorted(keep + drop, key=lambda e: e.step) == entries
    assert set(entries[-2:]) <= set(keep)
    losses = [e.val_loss for e in entries if e.val_loss is not None]
    if losses:
        assert min(losses) in [e.val_loss for e in keep]
    assert len([e for e in keep if e not in entries[-2:]]) <= 1


def test_a_missing_index_is_not_a_fresh_start(tmp_path, caplog):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    (tmp_path / "index.json").unlink()
    assert store(tmp_path).restore().step == 10
    assert "is missing; reading the folders instead" in caplog.text


def test_a_renamed_checkpoint_is_not_a_later_one(tmp_path):
    store(tmp_path).save(5, FILES)
    shutil.copytree(tmp_path / "step-00000005", tmp_path / "step-00000099")
    (tmp_path / "index.json").unlink()
    assert store(tmp_path).restore().step == 5


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'{"format": 1, "files": []}', b"\xff"])
def test_a_manifest_of_another_kind_is_no_checkpoint(tmp_path, content):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    (tmp_path / "step-00000010" / "manifest.json").write_bytes(content)
    (tmp_path / "index.json").unlink()
    assert store(tmp_path).restore().step == 5


def test_a_folder_in_place_of_a_file_is_no_checkpoint(tmp_path):
    for step in (5, 10):
        store(tmp_path).save(step, FILES)
    (tmp_path / "step-00000010" / "state.json").unlink()
    (tmp_path / "step-00000010" / "state.json").mkdir()
    assert store(tmp_path).restore().step == 5


def state() -> RunState:
    row = EpochRow(
        epoch=1,
        loss=0.1,
        accuracy=0.9,
        val_loss=1 / 3,
        val_accuracy=0.8,
        seconds=2.5,
        images_per_second=10.0,
    )
    arrays = {
        "b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a/bias": np.array([np.nan, -0.0, 1e-45], np.float32),
    }
    return RunState(
        step=7,
        current=EpochProgress(steps=2, loss_sum=0.1 + 0.2, correct=3, examples=64, seconds=0.7),
        history=(row,),
        best_epoch=1,
        weights=arrays,
        optimizer={"iteration": np.array(7, np.int64), **arrays},
        best_weights=arrays,
    )


def test_a_state_survives_its_files_bit_by_bit():
    first = state()
    second = RunState.from_files(first.to_files())
    assert second.to_files() == first.to_files()
    assert (second.step, second.current, second.history) == (7, first.current, first.history)
    assert list(second.weights) == ["b/kernel", "a/bias"], "the order is part of the state"
    assert second.weights["a/bias"].tobytes() == first.weights["a/bias"].tobytes()
    assert second.optimizer["iteration"].dtype == np.int64
    assert second.optimizer["iteration"].shape == ()


@pytest.mark.parametrize("file", ["state.json", "arrays.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\x80\x04K\x01.", b"\xff" * 64])
def test_files_that_are_no_state_are_refused(file, content):
    with pytest.raises(ValueError, match="not a checkpoint"):
        RunState.from_files({**state().to_files(), file: content})


def test_a_newer_format_is_refused():
    files = state().to_files()
    document = {**json.loads(files["state.json"]), "format": 99}
    with pytest.raises(ValueError, match="format 99"):
        RunState.from_files({**files, "state.json": json.dumps(document).encode()})


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", ".", ""])
def test_paths_that_leave_the_storage_are_refused(tmp_path, path):
    with pytest.raises(ValueError, match="not a relative path"):
        LocalStorage(tmp_path).write(path, b"")
