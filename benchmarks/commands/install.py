"""From a clone to the end of the first epoch: `make train` here beside that of another commit.

    python -m benchmarks.commands.install COMMIT       # measures, keeps docs/results/install.json
    python -m benchmarks.commands.install --table      # prints the table of the kept figures

In turn, each from a new clone with an empty home: nothing is cached but what the machine's own
registry or disk has.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.kit.commits import ROOT, main_of, short
from benchmarks.kit.paired import circumstances, compared, ratio

RESULT = ROOT / "docs" / "results" / "install.json"
ROUNDS = 3
FIRST_EPOCH = re.compile(r"epoch +1/\d+  loss")


def first_epoch(commit: str, folder: Path) -> dict[str, float]:
    """Seconds from `git clone` to the first epoch's end, and MB of the environment."""
    home, clone = folder / "home", folder / "clone"
    home.mkdir()
    settings = Path(os.environ.get("NPM_CONFIG_USERCONFIG", Path.home() / ".npmrc"))
    left_out = (
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "KERAS_HOME", "PYTHONPATH", "VIRTUAL_ENV"),
        # A container's; people's machines seldom have it.
        "PYTHONDONTWRITEBYTECODE",
    )
    env = {k: v for k, v in os.environ.items() if k not in left_out}
    env |= {"HOME": str(home), "NPM_CONFIG_USERCONFIG": str(settings)}
    began = time.perf_counter()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run(["git", "-C", clone, "checkout", "--quiet", commit], check=True)
    process = subprocess.Popen(
        ["make", "train"],
        cwd=clone,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if not any(FIRST_EPOCH.match(line) for line in process.stderr):
            raise RuntimeError(f"make train of {commit} ended with {process.wait()}")
        seconds = time.perf_counter() - began
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.stderr.close()
        process.wait()
    said = subprocess.run(["du", "-sm", clone / ".venv"], stdout=subprocess.PIPE, check=True)
    return {"seconds": seconds, "megabytes": float(said.stdout.split()[0])}


def measure(before: str, rounds: int) -> dict[str, Any]:
    """The document that is kept."""
    now = short("HEAD")
    pairs = []
    for _ in range(rounds):
        found = []
        for commit in (now, before):
            with tempfile.TemporaryDirectory() as folder:
                found.append(first_epoch(commit, Path(folder)))
        pairs.append(found)
        print(json.dumps(found), file=sys.stderr, flush=True)
    return {
        **circumstances("tensorflow"),
        "commits": [now, before],
        "megabytes": [side["megabytes"] for side in pairs[-1]],
        **compared([(one["seconds"], other["seconds"]) for one, other in pairs]),
    }


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    now, before = (f"{value / 1000:.2f}" for value in document["megabytes"])
    pairs = document["pairs"]
    medians = [statistics.median(pair[side] for pair in pairs) for side in (0, 1)]
    return "\n".join(
        [
            "| from clone to the end of the first epoch | s | environment, GB |",
            "|---|---|---|",
            f"| {document['commits'][0]}: what training needs, by uv | {medians[0]:.0f} | {now} |",
            f"| {document['commits'][1]}: all, by pip | {medians[1]:.0f} | {before} |",
            "",
            f"{ratio(document)} of the time; medians of {len(pairs)} pairs in turn; "
            f"{document['date']}, {document['device']}.",
        ]
    )


if __name__ == "__main__":
    main_of(__doc__, measure, table, RESULT, ROUNDS)
