"""A million pictures: how soon the first step is done, and what memory that takes.

    python -m benchmarks.speed.million               # measures, keeps docs/results/million.json
    python -m benchmarks.speed.million --table       # prints the table of the kept figures

The set is MNIST's training rows again and again, 1,000,000 of 28×28, as Parquet. `lenet train`
starts on it and on MNIST as it is, in turn, until its first span of steps is done; the difference
between the two is what the pictures cost. Memory is the peak of the process (`VmHWM`).
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kit.paired import UNFINISHED, circumstances, keep, kept_rounds
from job.data.examples import open_examples
from job.data.files import Split
from job.data.readers.parquet import write_dataset
from job.runs.run import REACHED_FILE
from job.storage.open import open_storage

RESULT = Path(__file__).parents[2] / "docs" / "results" / "million.json"
ROWS, TEST_ROWS = 1_000_000, 10_000
PIXELS = 28 * 28
POLL_SECONDS = 0.02


def staged() -> str:
    """The set, made once."""
    folder = UNFINISHED / "million"
    if not (folder / "dataset.json").exists():
        examples = open_examples("mnist")
        train, test = examples.training()[0], examples.test()
        rows = np.arange(ROWS) % len(train)
        many = Split(train.images[rows], train.labels[rows])
        write_dataset(open_storage(str(folder)), "million", examples.dataset.labels, many, test)
    return str(folder)


def first_step(*arguments: str) -> dict[str, float]:
    """Seconds to the end of the first span, and the peak of memory in bytes by then."""
    with tempfile.TemporaryDirectory() as folder:
        reached = Path(folder, "measured", REACHED_FILE)
        place = ("--storage", folder, "--name", "measured")
        command = [sys.executable, "-m", "tuning.cli", "train", "--epochs", "1", *arguments, *place]
        began = time.time()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not (reached.exists() and json.loads(reached.read_text())["step"]):
            if process.poll() is not None:
                sys.exit(process.stderr.read())
            time.sleep(POLL_SECONDS)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGTERM)
        process.communicate()
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
        return {"seconds": reached.stat().st_mtime - began, "peak": peak}


def one_round(number: int) -> dict[str, Any]:
    """Both, in turn."""
    million = ("--dataset", "own", "--data", staged())
    if number == 0:
        # Fills the cache of files; not counted.
        first_step(*million)
    return {"million": first_step(*million), "mnist": first_step()}


def measure(rounds: int) -> dict[str, Any]:
    """The document that is kept."""
    found = kept_rounds(f"million-{rounds}", rounds, one_round)
    medians = {
        side: {
            key: statistics.median(one[side][key] for one in found) for key in ("seconds", "peak")
        }
        for side in ("mnist", "million")
    }
    more = (ROWS - 60_000) * PIXELS
    return {
        **circumstances("tensorflow", "keras", "pyarrow"),
        "rounds": found,
        **medians,
        "times_pixels": (medians["million"]["peak"] - medians["mnist"]["peak"]) / more,
    }


def table() -> str:
    """The kept figures as Markdown."""
    kept = json.loads(RESULT.read_text())
    lines = ["| rows of 28×28 | pixels | first step | peak memory |", "|---|---|---|---|"]
    for side, rows in (("mnist", 60_000 + TEST_ROWS), ("million", ROWS + TEST_ROWS)):
        lines.append(
            f"| {rows:,} | {rows * PIXELS / 1e6:,.0f} MB | {kept[side]['seconds']:.1f} s "
            f"| {kept[side]['peak'] / 1e6:,.0f} MB |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {len(kept['rounds'])}, measured in turn; more pictures take "
            f"**{kept['times_pixels']:.2f} ×** their pixels; {kept['date']}, {kept['device']}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.table:
        keep(measure(arguments.rounds), RESULT, f"million-{arguments.rounds}")
    print(table())


if __name__ == "__main__":
    main()
