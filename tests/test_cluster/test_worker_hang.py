"""What a worker tells Ray: that it hangs, by ending itself, wherever that is; and its epochs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray.train

from cluster.connection import LOOKS_SECONDS
from cluster.workers.worker import RaySupervisor
from job.runs.state import EpochRow

HANG = """
import ctypes, sys, time
from cluster.workers.worker import RaySupervisor
supervisor = RaySupervisor(None)
supervisor.heartbeat(float(sys.argv[1]))
print("calling", flush=True)
{call}
print("returned", flush=True)
"""
# The second holds the interpreter's lock: no thread of Python's can run meanwhile.
CALLS = {"waits": "time.sleep(10)", "holds the lock": "ctypes.PyDLL(None).sleep(10)"}


@pytest.mark.parametrize("call", CALLS)
def test_a_worker_without_a_sign_of_life_ends_before_its_call_returns(call):
    script = HANG.format(call=CALLS[call])
    done = subprocess.run(
        [sys.executable, "-c", script, "0.5"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "calling\n")
    assert "Timeout (0:00:00.500000)!" in done.stderr
    assert 'File "<string>", line 7 in <module>' in done.stderr


def test_a_worker_that_shows_signs_of_life_goes_on():
    script = HANG.format(call="[(time.sleep(0.01), supervisor.heartbeat(2.0)) for _ in range(300)]")
    done = subprocess.run([sys.executable, "-c", script, "2.0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "calling\nreturned\n")


def test_short_epochs_are_reported_no_faster_than_ray_train_takes_reports_away(monkeypatch):
    """They would wait in a queue, and the end of training for them."""
    said = []
    monkeypatch.setattr(ray.train, "report", lambda metrics, **how: said.append(metrics))
    monkeypatch.setenv(LOOKS_SECONDS, "1000")
    supervisor = RaySupervisor(None)
    assert supervisor.report_due()
    losses = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.4, "val_accuracy": 0.9}
    supervisor.report(EpochRow(epoch=1, **losses, seconds=7.0, images_per_second=600.0))
    assert not supervisor.report_due()
    monkeypatch.setenv(LOOKS_SECONDS, "0")
    assert supervisor.report_due()
    [metrics] = said
    assert (metrics["epoch"], metrics["val_accuracy"]) == (1, 0.9)
