"""From a command to the end of its first training step, and how soon help is there.

    python -m benchmarks.speed.startup               # measures, keeps docs/results/startup.json
    python -m benchmarks.speed.startup --table       # prints the table of the kept figures

1. `lenet train` in one process against plain_keras.py, which does the same with nothing but Keras.
2. `lenet train` on two workers of one core each against Ray's own example of `TensorflowTrainer`,
   as workers.py runs it. Both start a Ray cluster of their own.
3. `lenet --help` against `python -c pass`.

All train LeNet5 on all training rows of MNIST, which lie in the cache on disk. The others' first
step ends in a callback, which writes down the time. Ours writes `reached.json`, whose time counts,
after its first span of eight steps: seven steps are to our disadvantage.

Warm: all files were read a moment ago. Cold: before each command the kernel is asked to forget the
pages of the interpreter, of all packages and of the data (`posix_fadvise`), as after a restart of
the machine; pages that a running process has mapped stay.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import circumstances, compared, keep, kept_rounds, ratio
from benchmarks.kit.peers import peer_packages
from benchmarks.speed.workers import PEERS, example_command
from job.data.cache import cache_folder
from job.data.sources import obtain
from job.runs.run import REACHED_FILE

RESULT = Path(__file__).parents[2] / "docs" / "results" / "startup.json"
POLL_SECONDS = 0.005
PAIRS = 5
SAME = ("--model", "lenet5", "--recipe", "notebook", "--epochs", "1")
TWO_WORKERS = ("--workers", "2", "--cpus-per-worker", "1", "--address", "local")
EXAMPLE = {
    **{"workers": 2, "epochs": 1, "batch_size": 64, "steps_per_epoch": 20},
    **{"lr": 0.01, "limit": None, "own_model": False},
}

Measure = Callable[[], float]


def lenet_step(*arguments: str) -> float:
    """Seconds until `lenet train` has trained its first span; it is stopped then."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        reached = Path(folder, "measured", REACHED_FILE)
        place = ("--storage", folder, "--name", "measured")
        command = [sys.executable, "-m", "tuning.cli", "train", *SAME, *arguments, *place]
        began = time.time()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while not (reached.exists() and json.loads(reached.read_text())["step"]):
            if process.poll() is not None:
                fail(command, process.returncode, said)
            time.sleep(POLL_SECONDS)
        ended = reached.stat().st_mtime
        process.send_signal(signal.SIGTERM)
        process.wait()
    return ended - began


def keras_step() -> float:
    """Seconds until the plain script has trained a step."""
    folder = str(cache_folder("mnist"))
    return told([sys.executable, str(Path(__file__).with_name("plain_keras.py")), folder])


def ray_step() -> float:
    """Seconds until Ray's example has trained a step; it goes on for nineteen more."""
    with tempfile.TemporaryDirectory() as folder:
        first = os.path.join(folder, "first")
        history = os.path.join(folder, "history.csv")
        command, environment = example_command({**EXAMPLE, "history": history, "first_step": first})
        return told(command, Path(first), environment)


def told(
    command: Sequence[str], first: Path | None = None, environment: dict[str, str] | None = None
) -> float:
    """Seconds until a command's first step has ended, which it writes to the file `first`.

    Without one, to a file that it gets as its last argument.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        if first is None:
            first = Path(folder, "first")
            command = [*command, str(first)]
        began = time.time()
        code = subprocess.call(
            command, stdout=said, stderr=said, env={**os.environ, **(environment or {})}
        )
        if code or not first.exists():
            fail(command, code, said)
        return float(first.read_text()) - began


def whole(*command: str) -> float:
    """Seconds of a whole command."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def fail(command: Sequence[str], code: int, said: Any) -> None:
    said.seek(0)
    sys.exit(f"{said.read()[-4000:]}\n{shlex.join(command)} exited {code}")


def installed_files() -> Iterator[str]:
    folders = {
        *(sys.prefix, sysconfig.get_path("stdlib")),
        *(str(Path(__file__).parents[2] / name) for name in ("job", "cluster", "tuning")),
        *(str(cache_folder("mnist")), str(peer_packages(PEERS))),
    }
    for folder in folders:
        for root, _, names in os.walk(folder):
            yield from (os.path.join(root, name) for name in names)


def forget_files() -> None:
    """Asks the kernel to forget what these files hold; it needs no root."""
    for path in filter(os.path.isfile, installed_files()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


# What is measured: ours, the other's name, and the other.
CASES: dict[str, tuple[Measure, str, Measure]] = {
    "local": (lenet_step, "a plain Keras script", keras_step),
    "2 workers": (lambda: lenet_step(*TWO_WORKERS), "Ray's example", ray_step),
    "help": (
        lambda: whole(sys.executable, "-m", "tuning.cli", "--help"),
        "`python -c pass`",
        lambda: whole(sys.executable, "-c", "pass"),
    ),
}

ALL = [(case, files) for case in CASES for files in ("warm", "cold")]


def measure(pairs: int) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next pair."""
    obtain("mnist")
    peer_packages(PEERS)
    rows = []
    for case, files in ALL:
        found = kept_rounds(
            name_of(case, files, pairs), pairs, functools.partial(one_pair, case, files)
        )
        values = [(one["ours"], one["theirs"]) for one in found]
        rows.append(
            {
                **{"case": case, "files": files, "against": CASES[case][1]},
                **compared(values),
                "difference": statistics.median(a - b for a, b in values),
            }
        )
    return {**circumstances("tensorflow", "keras", "ray"), "rows": rows}


def one_pair(case: str, files: str, number: int) -> dict[str, float]:
    """Measures ours, then theirs."""
    ours, _, theirs = CASES[case]
    if files == "warm" and number == 0:
        # Fills the cache of files; not counted.
        ours(), theirs()
    seconds = {}
    for name, side in {"ours": ours, "theirs": theirs}.items():
        if files == "cold":
            forget_files()
        seconds[name] = side()
    return seconds


def name_of(case: str, files: str, pairs: int) -> str:
    return f"startup-{case.replace(' ', '-')}-{files}-{pairs}"


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    lines = [
        "| what | files | ours, s | against | its, s | ratio (min–max) | ours takes longer by, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        what = "`lenet --help`" if row["case"] == "help" else f"first step, {row['case']}"
        lines.append(
            f"| {what} | {row['files']} | {row['ours']:.2f} | {row['against']} "
            f"| {row['theirs']:.2f} | {ratio(row)} | {row['difference']:+.2f} |"
        )
    pairs = len(document["rows"][0]["pairs"])
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"Medians of {pairs} pair{'s' if pairs > 1 else ''}, measured in turn, of the time from "
        f"the command; {document['date']}, {document['device']}; {versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    arguments = parser.parse_args()
    if not arguments.table:
        document = measure(arguments.pairs)
        keep(document, arguments.out, *(name_of(*one, arguments.pairs) for one in ALL))
    print(table(arguments.out))


if __name__ == "__main__":
    main()
