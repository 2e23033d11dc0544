"""Everything that is measured against others, one after the other, and the table of all of it.

    python -m benchmarks.bench                            # `make bench` is the same: hours
    python -m benchmarks.bench startup predict_rate       # only these, then the table
    python -m benchmarks.bench --table                    # the table of the kept figures
    python -m benchmarks.bench --table short              # its rows with a goal

Called again after an interruption it goes on: with the part that was interrupted, most of them with
the next of its rounds, as long as the code is the same. Parts that are named are measured in any
case.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.comparisons import comparisons
from benchmarks.kit.paired import UNFINISHED, rounds_file
from benchmarks.summary import kept, short_table, table

PARTS = {
    "startup": ["-m", "benchmarks.speed.startup"],
    "predict_rate": ["-m", "benchmarks.speed.predict_rate"],
    "train_rate": ["-m", "benchmarks.speed.train_rate"],
    "checkpoint_stall": ["-m", "benchmarks.speed.checkpoint_stall"],
    "workers": ["-m", "benchmarks.speed.workers"],
    "sweep": ["-m", "benchmarks.speed.sweep", "overhead"],
    "to_accuracy": ["-m", "benchmarks.speed.to_accuracy"],
}


def measure(names: Sequence[str]) -> None:
    """Measures the parts with these names; without any, all that an interrupted call left over."""
    UNFINISHED.mkdir(parents=True, exist_ok=True)
    done = {name: rounds_file(name).with_suffix(".done") for name in PARTS}
    left = names or [name for name, path in done.items() if not path.exists()]
    for name in left:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, *PARTS[name]], check=True)
        if not names:
            done[name].touch()
    if all(path.exists() for path in done.values()):
        for path in done.values():
            path.unlink()


def whole() -> str:
    return table(comparisons(), kept(comparisons()))


def short() -> str:
    return short_table(comparisons(), kept(comparisons()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--table",
        nargs="?",
        const="whole",
        choices=("whole", "short"),
        help="print the kept figures only",
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.part) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join(PARTS)}")
    if not arguments.table:
        measure(arguments.part)
    print(short() if arguments.table == "short" else whole())


if __name__ == "__main__":
    main()
