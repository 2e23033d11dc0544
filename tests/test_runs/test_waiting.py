"""Where something takes long, it is said what is waited for and how long; and signals count."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.workers import launch
from job import waiting as module
from job.config.resolve import resolve
from job.data import sources
from job.waiting import waiting
from tests.kit.commands import environment

ROOT = Path(__file__).parents[2]


class Said:
    """What is logged, as it comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: int = 1, last: str = "") -> None:
        self.lines: list[str] = []
        self.enough = threading.Event()
        self._wanted, self._last = wanted, last
        monkeypatch.setattr(module.log, "warning", self)
        monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)

    def __call__(self, text: str, *values: object) -> None:
        self.lines.append(text % values)
        if len(self.lines) >= self._wanted and self._last in self.lines[-1]:
            self.enough.set()


def test_a_wait_says_for_what_and_how_long(monkeypatch):
    said = Said(monkeypatch, wanted=2)
    with waiting("the store", 90):
        assert said.enough.wait(30)
    assert set(said.lines) == {"waiting for the store: 0:00 so far, at most 1:30"}
    count = len(said.lines)
    assert not any(thread.name == "waiting" for thread in threading.enumerate())
    assert len(said.lines) == count


def test_a_sign_of_life_makes_it_quiet_anew(monkeypatch):
    said = Said(monkeypatch)
    monkeypatch.setattr(module, "QUIET_SECONDS", 3600.0)
    with waiting("nothing") as heard:
        heard()
    assert said.lines == []


def test_what_was_waited_before_a_sign_of_life_is_not_counted(monkeypatch):
    said = Said(monkeypatch, last="waiting for steps: 0:05 so far")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with waiting("steps") as heard:
        clock.now = 1000.0
        heard()
        clock.now = 1005.0
        assert said.enough.wait(30), said.lines


def test_a_short_wait_costs_no_word_and_a_function_can_wait(caplog):
    @waiting("an answer")
    def answer() -> int:
        return 42

    assert answer() == 42
    assert caplog.text == ""


def test_a_long_download_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(sources, "QUIET_SECONDS", 0.0)
    with sources.download_bar("set.gz", 10_000_000) as advance:
        advance(2_500_000)
    assert "set.gz: 2.5 of 10.0 MB so far" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("has_trained", "says"), [(False, "to start TensorFlow"), (True, "started anew")]
)
def test_of_workers_that_say_nothing_it_is_said_what_becomes_of_them(has_trained, says):
    run = SimpleNamespace(config=resolve({"workers": "2"}))
    assert says in launch._silence(run, has_trained=has_trained)


# As a library that waits within itself, `sleep` begins anew after each signal.
STUCK = """
import signal, sys, time
from cluster import connection
from job.training.progress import PlainProgress
from job.training.signals import stop_on_signal
connection.GRACE_SECONDS = 0.2
with stop_on_signal(PlainProgress()), connection._patiently("--address there"):
    print("waits", flush=True)
    time.sleep({seconds})
"""


def stuck(seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_waits_within_a_library(number):
    process = stuck(3600)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1] == "stopped while waiting for --address there"


def test_what_was_not_stopped_goes_on():
    process = stuck(0)
    assert process.communicate(timeout=30)[1] == ""
    assert process.returncode == 0
