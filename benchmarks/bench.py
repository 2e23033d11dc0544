"""Everything that is measured against others, one after the other, and the table of all of it.

    python benchmarks/bench.py                            # `make bench` is the same: hours
    python benchmarks/bench.py startup predict_rate       # only these, then the table
    python benchmarks/bench.py --table                    # the table of the kept figures
    python benchmarks/bench.py --table short              # its rows with a goal

Called again after an interruption it goes on: with the part that was interrupted, most of them with
the next of its rounds, as long as the code is the same. Parts that are named are measured in any
case.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from comparisons import comparisons
from paired import UNFINISHED, rounds_file
from summary import kept, short_table, table

HERE = Path(__file__).parent
PARTS = {
    "startup": ["startup.py"],
    "predict_rate": ["predict_rate.py"],
    "train_rate": ["train_rate.py"],
    "checkpoint_stall": ["checkpoint_stall.py"],
    "workers": ["workers.py"],
    "workers-4": ["workers.py", "--workers", "4"],
    "sweep": ["sweep.py", "overhead"],
    "to_accuracy": ["to_accuracy.py"],
}


def measure(names: Sequence[str]) -> None:
    """Measures the parts with these names; without any, all that an interrupted call left over."""
    UNFINISHED.mkdir(parents=True, exist_ok=True)
    done = {name: rounds_file(name).with_suffix(".done") for name in PARTS}
    left = names or [name for name, path in done.items() if not path.exists()]
    for name in left:
        script, *arguments = PARTS[name]
        print(f"measuring {name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, str(HERE / script), *arguments], check=True)
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
