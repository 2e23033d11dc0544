"""benchmarks/gpu/gpu.sh and gpu.py: what is carried, the short form, and what was not measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import gpu
from benchmarks.gpu import table as gpu_table
from benchmarks.gpu.parts import Rate, rate_cases
from benchmarks.kit.in_time import MeasuringError, OutOfTimeError, lines
from benchmarks.kit.paired import circumstances
from job import versions
from tests.kit.commands import environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "gpu.sh"


def script(*arguments: object, **env: str) -> subprocess.CompletedProcess:
    command = ["bash", SCRIPT, *arguments]
    return subprocess.run(
        list(map(str, command)), env=environment(**env), capture_output=True, text=True
    )


@pytest.fixture
def packed(tmp_path) -> Path:
    """A folder of wheels and data, and the pieces of it."""
    (tmp_path / "whole" / "wheels").mkdir(parents=True)
    (tmp_path / "whole" / "wheels" / "one.whl").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "whole" / "a name.bin").write_bytes(b"")
    pieces = tmp_path / "pieces"
    done = script("cut_up", tmp_path / "whole", pieces, PIECE_BYTES="8192")
    assert done.returncode == 0, done.stderr
    return pieces


def test_what_is_cut_up_is_put_together(packed, tmp_path):
    pieces = sorted(packed.glob("piece-*"))
    assert len(pieces) > 2
    assert all(piece.stat().st_size <= 8192 for piece in pieces)
    done = script("put_together", packed, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "whole").rglob("*.*"):
        again = tmp_path / "again" / path.relative_to(tmp_path / "whole")
        assert again.read_bytes() == path.read_bytes()
    refused = script("cut_up", tmp_path / "whole", packed)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"gpu.sh: {packed} is not empty; name a new folder\n",
    )


def test_what_one_gpu_does_not_need_is_not_carried():
    """TensorFlow's loader demands none of it; hashes go with their package."""
    done = script("needed")
    assert done.returncode == 0, done.stderr
    whole, needed = (
        re.findall(r"^(\S+)==((?:.*\n)(?: .*\n)*)", Path(path).read_text(), re.MULTILINE)
        for path in (ROOT / "requirements-gpu.lock", done.stdout.strip())
    )
    left_out = {"nvidia-nccl-cu12", "nvidia-cuda-cupti-cu12", "nvidia-curand-cu12"}
    assert needed == [package for package in whole if package[0] not in left_out]
    assert len(whole) - len(needed) == len(left_out)


def flip(piece: Path) -> None:
    content = bytearray(piece.read_bytes())
    content[100] ^= 1
    piece.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("piece-001", flip, "is missing or spoilt"),
        ("piece-001", Path.unlink, "is missing or spoilt"),
        ("SHA256SUMS", Path.unlink, "is missing"),
        ("SHA256SUMS", lambda path: path.write_text("x\n"), "is no list of pieces"),
        ("SHA256SUMS", lambda path: path.write_text(""), "is empty"),
        ("SHA256SUMS", lambda path: path.write_text(f"{64 * '0'}  ../x\n"), "is no list of pieces"),
    ],
)
def test_a_spoilt_piece_is_refused(packed, tmp_path, name, spoil, said):
    spoil(packed / name)
    done = script("put_together", packed, tmp_path / "again")
    assert done.returncode == 1
    assert done.stderr.startswith(f"gpu.sh: {packed / name} {said}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_without_a_gpu_nothing_is_measured(tmp_path):
    stub = tmp_path / "nvidia-smi"
    stub.write_text("#!/bin/sh\nexit 9\n")
    stub.chmod(0o755)
    done = script("run", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu.sh: nvidia-smi finds no GPU; --short runs without one\n"


def test_short_figures_are_not_kept_as_those_of_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--short"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "name a file with --out" in capsys.readouterr().err


def test_the_table_without_figures(tmp_path):
    """Every figure is named and said not to be measured, beside what the notebook took."""
    rows = gpu_table.table(tmp_path / "none.json").splitlines()[2:-2]
    assert len(rows) == len(gpu_table.rows(gpu_table.BATCHES, gpu_table.EPOCHS)) == 26
    assert all(row.split(" | ")[1] == "not measured" for row in rows)
    assert rows[0] == (
        "| LeNet5, 50 epochs, batch 32; goal on an H100: 15 s of training | not measured "
        "| 150 s; 99.19 % |"
    )


GPU = {"kind": "gpu", "device": "Tesla T4", "compute_capability": "7.5", "driver": "535.1"}


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({**GPU, "tf32": False}, "gpu (Tesla T4, compute capability 7.5, driver 535.1); keras 3."),
        ({**GPU, "tf32": True}, "keras 3. float32 products in TF32."),
        ({"kind": "cpu", "device": "x"}, "**Measured on a processor**: 2026-01-01, cpu (x); "),
    ],
)
def test_on_what_it_was_measured(device, said):
    """Ray is not installed where nothing else is needed."""
    document = {
        "date": "2026-01-01",
        "versions": {"keras": "3", "ray": None},
        "short": False,
        "rows": {"device": device},
    }
    note = gpu_table.note_of(document)
    assert said in note
    assert "ray" not in note
    assert ("TF32" in note) == device.get("tf32", False)


def test_what_is_not_installed_has_no_version(monkeypatch):
    """One process trains, and is measured, without Ray."""
    absent = "no-such-package"
    found = circumstances("keras", absent)["versions"]
    assert found["keras"].startswith("3.")
    assert found[absent] is None
    monkeypatch.setattr(versions, "RECORDED", ("keras", absent))
    assert versions.versions().keys() == {"python", "keras"}


def test_each_choice_of_a_user_is_measured_alone():
    cases = rate_cases([32])
    assert len(set(cases)) == len(cases)
    for model in ("lenet5", "alexnet"):
        usual, *others = (case for case in cases if case.model == model)
        assert usual == Rate(model, usual.batch)
        for other in others:
            assert [a == b for a, b in zip(usual, other, strict=True)].count(False) == 1


def test_what_a_program_printed_before_its_time_was_over_is_kept():
    found = []
    endless = "import time; print('first', flush=True); time.sleep(600)"
    began = time.monotonic()
    with pytest.raises(OutOfTimeError):
        found.extend(lines(["-c", endless], began + 3))
    assert found == ["first\n"]
    with pytest.raises(MeasuringError, match="failed: ValueError: why"):
        list(lines(["-c", "raise ValueError('why')"], began + 60))
    crash = "import os, sys; print('last', file=sys.stderr, flush=True); os.abort()"
    with pytest.raises(MeasuringError, match="failed: ended by SIGABRT"):
        list(lines(["-c", crash], began + 60))


def test_what_did_not_fit_says_so():
    def measured(size, until):
        yield "loss", {"loss": 1.0}
        raise OutOfTimeError("out of time")

    part = gpu.Part(measure=measured, keys=lambda _: ["loss", "memory"], seconds=1)
    found = gpu.figures_of(part, gpu.SHORT, 0.0)
    assert found == {"loss": {"loss": 1.0}, "memory": {"not_measured": "out of time"}}
    assert gpu_table.cell(found["memory"], gpu_table.memory_text) == "not measured: out of time"


def test_a_processor_is_not_taken_for_a_gpu():
    rows = {"device": {"kind": "cpu", "device": "x"}}
    gpu.check_device({"short": True, "rows": rows})
    with pytest.raises(MeasuringError, match="sees no GPU"):
        gpu.check_device({"short": False, "rows": rows})


def short_form(out: Path, *arguments: str) -> dict:
    """The figures of the short form, whose table has to be printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.gpu", "--short", "--out", out, *arguments],
        env=environment(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES="-1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == gpu_table.table(out) + "\n"
    document = json.loads(out.read_text())
    assert set(document["rows"]) == {"device", *gpu_table.keys(gpu.SHORT.task.batches)}
    assert document["rows"]["device"]["kind"] == "cpu"
    assert "**Measured on a processor**" in done.stdout
    return document["rows"]


def check_engine_and_resume(rows: dict) -> None:
    # A net that has learned nothing is at ln 10 = 2.30; 1,024 rows teach a little.
    assert 1.5 < rows["loss"]["loss"] < 2.3
    assert rows["memory"] == {"not_measured": "no GPU"}
    resume = rows["resume"]
    assert resume["equal"]
    assert resume["undisturbed"] == resume["resumed"]
    assert resume["interrupted"]["ended"] == "interrupted"
    assert 0 < resume["interrupted"]["step"] < resume["resumed"]["step"] == 64
    assert resume["interrupted"]["weights_sha256"] != resume["resumed"]["weights_sha256"]


def test_the_short_form(tmp_path):
    rows = short_form(tmp_path / "gpu.json", "--parts", "resume")
    check_engine_and_resume(rows)
    assert rows["sweep-shared"] == {"not_measured": "not asked for"}


@pytest.mark.long
def test_the_whole_short_form(tmp_path):
    rows = short_form(tmp_path / "gpu.json", "--seconds", "550")
    check_engine_and_resume(rows)
    assert rows["loss-cpu"] == rows["loss"]
    rates = [figures for key, figures in rows.items() if key.startswith("rate-")]
    assert len(rates) == len(rate_cases(gpu.SHORT.task.batches)) + 1
    assert all(0 < one["min"] <= one["images_per_second"] <= one["max"] for one in rates)
    for name in ("notebook", "notebook-no-xla"):
        assert 0.2 < rows[name]["test_accuracy"] < 1
    for name in ("sweep-shared", "sweep-in-turn"):
        assert rows[name]["states"] == ["finished", "finished"]
        assert 0 < rows[name]["training"] < rows[name]["seconds"]
    assert rows["sweep-shared"]["val_accuracy"] == rows["sweep-in-turn"]["val_accuracy"]
