"""Memory of `lenet train` beyond what importing TensorFlow and Keras takes, beside another commit.

    python -m benchmarks.commands.memory COMMIT        # measures, keeps docs/results/memory.json
    python -m benchmarks.commands.memory --table       # prints the table of the kept figures

In turn: a process that only imports them, an epoch of LeNet5 by `lenet train` here and there, to
its result and pictures, and the same epoch by PyTorch's loop (benchmarks/speed/train_rate.py). Of
each the most that was resident at once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.kit.commits import ROOT, git, main_of, short
from benchmarks.kit.paired import circumstances, compared, ratio
from benchmarks.speed import train_rate

RESULT = ROOT / "docs" / "results" / "memory.json"
ROUNDS = 5
IMPORTS = [sys.executable, "-c", "import tensorflow, keras"]
TRAIN = [
    *(sys.executable, "-m", "tuning.cli", "train", "--recipe", "notebook", "--model", "lenet5"),
    *("--batch-size", "128", "--epochs", "1", "--device", "cpu"),
]
PYTORCH = [sys.executable, "-m", train_rate.__name__, "--side", "pytorch", "lenet5", "128"]


def peak(command: list[str], code: Path, folder: str, given: str = "") -> float:
    """The most MB that a command, of the code in a folder, had resident."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(given)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_maxrss / 1000


def measure(before: str, rounds: int) -> dict[str, Any]:
    """The document that is kept."""
    now, then = short("HEAD"), short(before)
    torch = train_rate.torch_at_hand()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        other = Path(scratch) / "other"
        git("worktree", "add", "--quiet", "--detach", str(other), before)
        try:
            for _ in range(rounds):
                with tempfile.TemporaryDirectory() as folder:
                    row = {
                        "imports": peak(IMPORTS, ROOT, folder),
                        "now": peak([*TRAIN, "--name", "now"], ROOT, folder),
                        "before": peak([*TRAIN, "--name", "before"], other, folder),
                    }
                    if torch:
                        row["pytorch"] = peak(PYTORCH, ROOT, folder, "\n")
                found.append(row)
                print(json.dumps(row), file=sys.stderr, flush=True)
        finally:
            git("worktree", "remove", "--force", str(other))
    beyond = [tuple(row[side] - row["imports"] for side in ("now", "before")) for row in found]
    return {
        **circumstances("tensorflow", "keras"),
        "commits": [now, then],
        "torch": torch,
        "peak_mb": {side: statistics.median(row[side] for row in found) for side in found[0]},
        **compared(beyond),
    }


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    peaks = document["peak_mb"]
    titles = {
        "now": f"`lenet train`, {document['commits'][0]}",
        "before": f"`lenet train`, {document['commits'][1]}",
        "imports": "`import tensorflow, keras`",
        "pytorch": "PyTorch's loop, without validation, test or pictures",
    }
    imports = peaks["imports"]
    rows = (
        f"| {title} | {peaks[side]:,.0f} | {peaks[side] - imports:+,.0f} |"
        for side, title in titles.items()
        if side in peaks
    )
    return "\n".join(
        [
            "| an epoch of LeNet5, batch 128 | peak, MB | beyond the imports |",
            "|---|---|---|",
            *rows,
            "",
            f"{ratio(document)} of what it took beyond the imports; medians of "
            f"{len(document['pairs'])} rounds in turn; {document['date']}, {document['device']}.",
        ]
    )


if __name__ == "__main__":
    main_of(__doc__, measure, table, RESULT, ROUNDS)
