"""The command line as a user calls it, and what it leaves."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from job.config.config import TrainConfig
from job.config.resolve import resolve

Lenet = Callable[..., subprocess.CompletedProcess]

SMOKE = ("--limit-train", "6000", "--epochs", "2", "--batch-size", "32", "--optimizer", "momentum")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tuning.cli", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    # COLUMNS keeps click from wrapping by the width of whoever's terminal this is.
    return {**os.environ, "COLUMNS": "100", **extra}


def lines_of(said: str) -> list[str]:
    """What a command said, without what it says where it is slow, to show that it still works."""
    lines = said.splitlines()
    return [
        line
        for line in lines
        if not (line.startswith("epoch ") and " step " in line)
        and not line.startswith("waiting for ")
        and "  running " not in line
        and "  waiting for room" not in line
    ]


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; folders end in `/`."""
    return {
        str(p.relative_to(folder)) + ("/" if p.is_dir() else ""): b""
        if p.is_dir()
        else p.read_bytes()
        for p in sorted(folder.rglob("*"))
    }


def asked(command: str) -> TrainConfig:
    """The settings of the run that a `lenet train` with values for all of its flags asks for."""
    _, _, *words = shlex.split(command)
    fields = (word.removeprefix("--").replace("-", "_") for word in words[::2])
    return resolve(dict(zip(fields, words[1::2], strict=True)))
