"""Programs that are ended when their time is over; what they printed until then is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence


class OutOfTimeError(Exception):
    """A part did not end within its share of the time; the message says how far it came."""


class MeasuringError(Exception):
    """A part's process failed; the message is the last that it said."""


def lines(command: Sequence[object], until: float, **environment: str) -> Iterator[str]:
    """Runs Python in a process group of its own; yields its lines.

    Raises:
        OutOfTimeError: It was ended because its time was over.
        MeasuringError: It failed.
    """
    late = threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.0, until - time.monotonic()), end)
        timer.start()
        try:
            yield from process.stdout
            code = process.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise OutOfTimeError("out of time")
        if code < 0:
            raise MeasuringError(f"failed: ended by {signal.Signals(-code).name}")
        if code:
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()] or [f"exit code {code}"]
            raise MeasuringError(f"failed: {said[-1][:200]}")
