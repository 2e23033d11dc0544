"""Failures of the machine, the network and libraries: a line that says what to do, exit code 1. A
defect of this program keeps its traceback."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import ssl
import stat
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import botocore.exceptions as boto
import click
import pytest
import ray.exceptions
import ray.train
import tensorflow as tf
import urllib3.exceptions
from PIL import Image

from job.errors import InputError, JobError
from job.reasons import reason_of
from tests.kit.commands import command
from tuning.cli import COMMANDS, run_command


def system(number: int, *place: str) -> Callable[[], OSError]:
    return lambda: OSError(number, os.strerror(number), *place)


def remote(cause: Exception) -> Exception:
    return ray.exceptions.RayTaskError("task", "Traceback …", cause).as_instanceof_cause()


def refusal(code: str) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")


# How it is made, what is said of it, and what is to be done.
FAILURES: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "full disk": (system(errno.ENOSPC, "/x"), "/x: No space left on device", "free some space"),
    "full disk, nobody says which": (system(errno.ENOSPC), "No space left", "free some space"),
    "quota": (system(errno.EDQUOT), "Disk quota exceeded", "free some space"),
    "no right": (system(errno.EACCES, "/x"), "/x: Permission denied", "give this account"),
    "read-only": (system(errno.EROFS, "/x"), "Read-only file system", "name another place"),
    "file for a folder": (system(errno.ENOTDIR, "/x"), "Not a directory", "path is right"),
    "stale share": (system(errno.ESTALE, "/x"), "/x: Stale file handle", "share is still there"),
    "failing disk": (system(errno.EIO), "Input/output error", "disk or share"),
    "time out": (system(errno.ETIMEDOUT), "Connection timed out", "network is up"),
    "reset": (system(errno.ECONNRESET), "Connection reset by peer", "network is up"),
    "reset, in words": (lambda: ConnectionResetError("by them"), "by them", "network is up"),
    "too many files": (system(errno.EMFILE), "Too many open files", "ulimit -n"),
    "no memory for a process": (system(errno.ENOMEM), "Cannot allocate memory", "--workers"),
    "text alone": (lambda: OSError("they say\nno more"), "they say no more", "lenet doctor"),
    "nothing at all": (OSError, "OSError", "lenet doctor"),
    "no such host": (lambda: socket.gaierror(-2, "Name unknown"), "Name unknown", "network is up"),
    "a URL": (
        lambda: urllib.error.URLError(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        "refused",
        "network is up",
    ),
    "certificate": (lambda: ssl.SSLError(1, "self-signed"), "self-signed", "AWS_CA_BUNDLE"),
    "half an answer": (lambda: http.client.IncompleteRead(b""), "IncompleteRead", "network is up"),
    "urllib3": (lambda: urllib3.exceptions.ProtocolError("cut"), "cut", "network is up"),
    "memory": (MemoryError, "not enough memory", "--batch-size"),
    "refused by the store": (lambda: refusal("AccessDenied"), "AccessDenied", "lenet doctor"),
    "no store": (
        lambda: boto.EndpointConnectionError(endpoint_url="http://x"),
        "http://x",
        "lenet doctor --storage",
    ),
    "no credentials": (boto.NoCredentialsError, "Unable to locate credentials", "--storage"),
    "the store's certificate": (
        lambda: boto.SSLError(endpoint_url="https://x", error="bad"),
        "https://x",
        "AWS_CA_BUNDLE",
    ),
    "actor": (ray.exceptions.RayActorError, "Ray: RayActorError", "ray status"),
    "no answer of Ray": (
        lambda: ray.exceptions.GetTimeoutError("Get timed out"),
        "Ray: GetTimeoutError: Get timed out",
        "ray status",
    ),
    "memory of a node": (
        lambda: ray.exceptions.OutOfMemoryError("killed"),
        "Ray: OutOfMemoryError",
        "fewer --workers",
    ),
    "Ray Train": (lambda: ray.train.TrainingFailedError("gone"), "gone", "ray status"),
    "no Ray": (lambda: ConnectionError("Could not find any running"), "Could not", "network"),
    "elsewhere": (lambda: remote(system(errno.ENOSPC, "/y")()), "/y: No space", "free some space"),
    "elsewhere, ours": (lambda: remote(JobError("do this")), "do this", ""),
    "memory of a GPU": (
        lambda: tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating"),
        "TensorFlow: ResourceExhaustedError: OOM when",
        "--batch-size",
    ),
    "TensorFlow": (
        lambda: tf.errors.InternalError(None, None, "Blas\nGEMM"),
        "TensorFlow: InternalError: Blas",
        "--verbose",
    ),
    "TensorFlow's arguments": (
        lambda: tf.errors.InvalidArgumentError(None, None, "shapes"),
        "TensorFlow: InvalidArgumentError: shapes",
        "--verbose",
    ),
}
DEFECTS = {
    "type": lambda: TypeError("ours"),
    "assertion": AssertionError,
    "key": lambda: KeyError("ours"),
    "value": lambda: ValueError("ours"),
    "elsewhere": lambda: remote(ZeroDivisionError("ours")),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_says_why_and_what_to_do(case):
    make, why, remedy = FAILURES[case]
    said = reason_of(make())
    assert said is not None
    assert why in said
    assert remedy in said
    assert "\n" not in said


@pytest.mark.parametrize("case", DEFECTS)
def test_a_defect_is_none(case):
    assert reason_of(DEFECTS[case]()) is None


# Where a command meets the world, one after the other.
WRITE, READ, PROBE = (f"job.storage.disk.LocalStorage.{n}" for n in ("write", "read", "probe"))
TENSORFLOW, RAY = "job.engine.runtime.start_tensorflow", "ray.init"
SET, SET_READ = "job.data.sources.obtain", "job.data.examples.obtain"
PICTURES = "job.results.predict.read_examples"
# One of each kind, where the way there is long.
FEW = ("full disk", "text alone", "no credentials", "no answer of Ray", "elsewhere", "TensorFlow")
RUN = ("--limit-train", "600", "--epochs", "1")
WAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": (("train", *RUN), (PROBE, WRITE, SET_READ, TENSORFLOW)),
    "train on Ray": (("train", *RUN, "--workers", "2", "--address", "local"), (PROBE, RAY)),
    "sweep": (("sweep", "--limit-train", "600", "--address", "local"), (PROBE, RAY)),
    "baselines": (("baselines", "--limit-train", "600", "--address", "local"), (PROBE, RAY)),
    "evaluate": (("evaluate", "smoke"), (READ, TENSORFLOW)),
    "predict": (("predict", "smoke", "a.png"), (READ, PICTURES, TENSORFLOW)),
    "export": (("export", "smoke"), (READ, TENSORFLOW)),
    "runs": (("runs",), ("job.storage.disk.LocalStorage.files",)),
    "compare": (("compare", "smoke", "other"), (READ, "job.compare.compare.compare")),
    "report": (("report", "smoke"), (READ, "tuning.report.command.report")),
    "data show": (("data", "show"), ("job.data.sources.cached",)),
    "data download": (("data", "download"), (SET,)),
    "data stage": (("data", "stage", "there"), (WRITE,)),
    "doctor": (("doctor",), ("cluster.doctor.examine.examine",)),
    "models": (("models",), (TENSORFLOW,)),
}


def failing(make: Callable[[], BaseException]) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise make()

    return fail


@pytest.fixture
def at_home(finished_run, at_hand, tmp_path, monkeypatch) -> Path:
    """A folder with two runs and a picture, from which commands are called in this process."""
    for name in ("smoke", "other"):
        shutil.copytree(finished_run, tmp_path / "runs" / name)
    picture = Image.new("L", (28, 28), "white")
    picture.paste("black", (8, 4, 16, 24))
    picture.save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_no_command_ends_with_a_librarys_words_alone(way, at_home, capfd, monkeypatch):
    words, places = WAYS[way]
    for place in places:
        for case in FEW if place in (TENSORFLOW, WRITE, SET_READ) else FAILURES:
            make, why, _ = FAILURES[case]
            with monkeypatch.context() as there:
                there.setattr(place, failing(make))
                code = run_command(words)
            said = capfd.readouterr().err.splitlines()
            where = f"{place}, {case}: {said}"
            assert code in (1, 2), where
            assert len(said) in (1, 2), where
            assert said[-1].startswith("error: "), where
            assert why.rpartition(": ")[2] in said[-1], where


@pytest.mark.parametrize("way", WAYS)
def test_a_defect_is_seen_as_one(way, at_home, monkeypatch):
    words, places = WAYS[way]
    for place in places:
        with monkeypatch.context() as there:
            there.setattr(place, failing(AssertionError))
            with pytest.raises(AssertionError):
                run_command(words)


@click.command()
@click.option("--verbose", is_flag=True)
def broken(verbose: bool) -> None:
    raise tf.errors.InternalError(None, None, "why")


def test_verbose_shows_where_it_failed(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "broken", f"{__name__}:broken")
    assert run_command(["broken"]) == 1
    assert capsys.readouterr().err.startswith("error: lenet broken: TensorFlow: InternalError: why")
    assert run_command(["broken", "--verbose"]) == 1
    shown = capsys.readouterr().err
    assert "in broken" in shown
    assert "error: lenet broken: TensorFlow" in shown.splitlines()[-1]


def test_who_stops_reading_gets_no_error(at_home):
    """`lenet runs | head -0`."""
    with subprocess.Popen(
        command("runs"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_result_that_can_not_be_printed_is_an_error(at_home):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("runs"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "error: lenet runs: No space left on device; free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_says_what_it_could_not_take_and_how_to_go_on(at_home, capfd, monkeypatch):
    def full(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            raise system(errno.ENOSPC)()

    monkeypatch.setattr(os, "fsync", full)
    assert run_command(("train", *RUN, "--name", "new")) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert "runs/new/config.json: No space left on device; free some space" in line
    assert "continue with: lenet train --name new" in line


def test_a_run_that_can_not_be_read_is_listed_and_it_is_said_why(
    at_home, capfd, caplog, monkeypatch
):
    monkeypatch.setattr(READ, failing(system(errno.EIO, "/x")))
    assert run_command(["runs"]) == 0
    assert capfd.readouterr().out.count("unreadable") == 2
    assert (
        "smoke can't be read: RUN 'runs/smoke': config.json can't be read (/x: Input/"
        in caplog.text
    )


def test_errors_of_ours_are_their_own_reason():
    assert reason_of(InputError("--x", "y", "do z")) == "--x 'y': do z"
