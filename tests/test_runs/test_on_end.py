"""`--on-end` is called once, however a run ended, and changes nothing of it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from job.commands import on_end as module
from job.commands.on_end import on_end
from job.errors import JobError, StopRequestedError
from tests.kit.commands import result_of

SAY = 'echo "$LENET_END_NAME|$LENET_END_STATE|$LENET_END_RESULT|$LENET_ON_END" >> {file}'


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What the command is, and the lines that it wrote."""
    file = tmp_path / "said"
    monkeypatch.setenv("LENET_ON_END", "never called by what is called")
    command = SAY.format(file=file)
    return command, lambda: file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "finished"),
        (StopRequestedError("stopped", signal.SIGINT), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (JobError("no"), "failed"),
        (ValueError("a defect"), "failed"),
    ],
)
def test_it_is_told_how_it_ended(said, error, state):
    command, lines = said
    if error is None:
        with on_end(command, "r", "/kept/r/result.json"):
            pass
    else:
        with pytest.raises(type(error)), on_end(command, "r", "/kept/r/result.json"):
            raise error
    result = "/kept/r/result.json" if state == "finished" else ""
    assert lines() == [f"r|{state}|{result}|"]


def test_its_failure_is_a_warning(caplog, capfd):
    with on_end("echo here; exit 3", "r", "result.json"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "--on-end's command ended with exit code 3"
    ]
    # What it prints is no result.
    assert capfd.readouterr() == ("", "here\n")


def test_one_that_hangs_is_ended(monkeypatch, caplog):
    monkeypatch.setattr(module, "LIMIT_SECONDS", 0.2)
    with on_end("exec sleep 600", "r", "result.json"):
        pass
    assert "took more than 0 s and was ended" in caplog.text


def test_a_run_calls_it_and_does_not_keep_it(said, lenet, finished_run, tmp_path):
    command, lines = said
    config = ("--config", finished_run / "config.json", "--epochs", 1, "--limit-train", 64)
    done = lenet("train", *config, "--name", "r", "--on-end", command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "r"
    assert lines() == [f"r|finished|{tmp_path}/runs/r/result.json|"]
    assert "on_end" not in (tmp_path / "runs/r/config.json").read_text()


def test_a_folder_can_not_name_a_command(said, lenet, finished_run, tmp_path):
    """Whoever can write to a store must not run anything here."""
    command, lines = said
    shutil.copytree(finished_run, tmp_path / "runs/r")
    (tmp_path / "runs/r/result.json").unlink()
    file = tmp_path / "runs/r/config.json"
    document = json.loads(file.read_text())
    document["config"]["on_end"] = command
    file.write_text(json.dumps(document))
    done = lenet("train", "--name", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert "config.json can't be read" in done.stderr
    assert lines() == []


@pytest.mark.parametrize("steps", [1, 5])
def test_a_trace_has_so_many_steps_and_changes_nothing(steps, lenet, finished_run, tmp_path):
    few = ("--config", finished_run / "config.json", "--epochs", 2, "--limit-train", 2000)
    for name, more in (("plain", ()), ("traced", ("--profile", steps))):
        done = lenet("train", *few, "--name", name, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    plain, traced = (result_of(tmp_path / "runs" / name) for name in ("plain", "traced"))
    assert traced["weights_sha256"] == plain["weights_sha256"]
    assert not (tmp_path / "runs/plain/profile").exists()
    (trace,) = Path(tmp_path, "runs/traced/profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 10_000
