"""A command of the user's that is called when a run or a sweep has ended, however it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from job.errors import StopRequestedError
from job.waiting import waiting

# A message is sent in seconds; a copy of a model may take minutes.
LIMIT_SECONDS = 600.0
VARIABLE = "LENET_ON_END"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def on_end(command: str | None, name: str, result: str) -> Iterator[None]:
    """Calls a command after the block, with the shell; what becomes of it changes nothing here.

    It is only ever what this call was given: a folder or a store can't name one.

    Args:
        command: What to call; nothing for None.
        name: Of the run or sweep: its LENET_END_NAME.
        result: Where its result is, once it has finished: its LENET_END_RESULT, else empty. How it
            ended, LENET_END_STATE, is `finished`, `stopped` (it can be continued) or `failed`.
    """
    state = "failed"
    try:
        yield
        state = "finished"
    except (StopRequestedError, KeyboardInterrupt):
        state = "stopped"
        raise
    finally:
        if command:
            told = {"NAME": name, "STATE": state, "RESULT": result if state == "finished" else ""}
            _call(command, {f"LENET_END_{key}": value for key, value in told.items()})


def _call(command: str, told: dict[str, str]) -> None:
    # Not once more for what the command itself begins.
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | told
    # What it prints is no result of ours.
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": 2}
    with waiting("--on-end's command to end", LIMIT_SECONDS):
        try:
            done = subprocess.run(
                command, shell=True, env=environment, timeout=LIMIT_SECONDS, **streams
            )
        except subprocess.TimeoutExpired:
            log.warning("--on-end's command took more than %.0f s and was ended", LIMIT_SECONDS)
            return
    if done.returncode:
        log.warning("--on-end's command ended with exit code %d", done.returncode)
