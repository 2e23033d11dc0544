"""Sets two programs against each other, in turn: A, B, A, B and so on.

Each side is a process that stays warm: it reads a line from stdin, does one measured piece of work
and prints a JSON line with what it measured. Only one side works at a time, so a machine that
drifts changes both alike and the ratio of neighbours holds.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
UNFINISHED = ROOT / "build" / "bench"


class Side:
    """One of the programs.

    Args:
        command: Starts it.
        environment: Variables to add to the current ones.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def measure(self) -> dict[str, Any]:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def in_turn(sides: dict[str, Side], rounds: int) -> list[dict[str, dict[str, Any]]]:
    """Measures all sides in each round, after a round that isn't counted, and closes them.

    Returns:
        For each round what each side printed.
    """
    try:
        found = [{name: side.measure() for name, side in sides.items()} for _ in range(rounds + 1)]
    finally:
        for side in sides.values():
            side.close()
    return found[1:]


def kept_rounds(
    name: str, rounds: int, measure: Callable[[int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measures round by round and keeps each in `UNFINISHED`.

    So a measurement of many minutes goes on where it was interrupted, unless the project's code is
    another by then. `keep` ends it.

    Args:
        name: Of the measurement, with everything that it depends on.
        rounds: How many there will be.
        measure: Gets the round's number, from 0; returns what JSON can hold.
    """
    path = rounds_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for number in range(len(found), rounds):
        found.append(measure(number))
        with path.open("a") as stream:
            stream.write(json.dumps(found[-1]) + "\n")
        print(name, json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found[:rounds]


def keep(document: dict[str, Any], path: Path, *names: str) -> None:
    """Writes the result of these measurements and forgets their rounds: the next begins anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    for name in names:
        rounds_file(name).unlink(missing_ok=True)


def rounds_file(name: str) -> Path:
    code = hashlib.sha256()
    for package in ("cluster", "job", "tuning"):
        for path in sorted((ROOT / package).rglob("*.py")):
            code.update(path.read_bytes())
    return UNFINISHED / f"{name}-{code.hexdigest()[:12]}.jsonl"


def peak_mb() -> float:
    """The most memory that this process had resident so far, in MB.

    `getrusage` would also count the process that it was forked from.
    """
    with open("/proc/self/status") as stream:
        (kilobytes,) = (line.split()[1] for line in stream if line.startswith("VmHWM:"))
    return int(kilobytes) / 1000


def ratio(row: dict[str, Any]) -> str:
    """What `compared` gives, as a cell of a table."""
    return f"**{row['ratio']:.2f} ×** ({row['ratio_min']:.2f}–{row['ratio_max']:.2f})"


def circumstances(*packages: str) -> dict[str, Any]:
    """When and on what it was measured, with these packages' versions, None if not installed."""
    from job.engine.runtime import device_name
    from job.versions import installed

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name("cpu"),
        "versions": {name: installed(name) for name in packages},
    }


def compared(values: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Compares what was measured in turn.

    Args:
        values: Our figure and theirs, for each pair.

    Returns:
        `ours` and `theirs` (medians), `ratio` (median of ours / theirs pair by pair) with
        `ratio_min` and `ratio_max`, and all values under `pairs`.
    """
    ratios = [a / b for a, b in values]
    return {
        "ours": statistics.median(a for a, _ in values),
        "theirs": statistics.median(b for _, b in values),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "pairs": values,
    }
