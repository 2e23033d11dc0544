"""A function called in a process of its own, on the processor: what it does to that stays there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from job.waiting import waiting

Answer = dict[str, Any]


class EndedError(Exception):
    """The process ended without an answer; the message says how."""


def apart(function: Callable[[Answer], Answer], asked: Answer, what: str) -> Answer:
    """What a function of this package returns; both ways what is said is JSON.

    Args:
        function: Called in the other process.
        asked: Its argument.
        what: What is waited for, in words.

    Raises:
        EndedError: The process ended without an answer.
    """
    module, name = function.__module__, function.__name__
    with waiting(what):
        # -P: of what lies where the command is called, nothing is imported by chance.
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-c"),
                f"from {module} import {name}; from {__name__} import answer; answer({name})",
            ],
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    code = done.returncode
    if code:
        raise EndedError(signal.Signals(-code).name if code < 0 else f"exit code {code}")
    return json.loads(done.stdout)


def answer(function: Callable[[Answer], Answer]) -> None:
    """The other process: reads what is asked, and answers."""
    asked = json.load(sys.stdin)
    # What libraries and users' code print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    said = function(asked)
    with answers:
        json.dump(said, answers)
