"""A worker that hangs ends itself, wherever it hangs."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
