"""From a clone to the end of the first epoch: `make train` here beside that of another commit.

    python -m benchmarks.commands.install COMMIT       # measures, keeps docs/results/install.json
    python -m benchmarks.commands.install --table      # prints the table of the kept figures

In turn, each from a new clone with an empty home: nothing is cached but what the machine's own
registry or disk has.
"""

from __future__ import annotations

import argparse
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

from benchmarks.kit.paired import circumstances, compared, ratio

ROOT = Path(__file__).parents[2]
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
    megabytes = said("du", "-sm", str(clone / ".venv")).split()[0]
    return {"seconds": seconds, "megabytes": float(megabytes)}


def said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def measure(before: str, rounds: int) -> dict[str, Any]:
    """The document that is kept."""
    now = said("git", "rev-parse", "--short", "HEAD")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", nargs="?", help="the other commit")
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.before is None:
            parser.error("name the other commit")
        document = measure(arguments.before, arguments.rounds)
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
