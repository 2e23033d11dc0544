"""Writes the tables into README.md and docs/, between their markers.

python benchmarks/readme.py            # rewrites
python benchmarks/readme.py --check    # exit code 1 where a table is not that of its data
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import re
import sys
from pathlib import Path

import baselines
import checkpoint_stall
import collectives
import studies
import sweep
import train_rate
import workers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
TABLES = {
    "notebook": lambda: studies.table("notebook"),
    "quick": lambda: studies.table("quick"),
    "choose-quick": lambda: studies.table("choose-quick"),
    "sweep-winner": lambda: studies.table("sweep-winner"),
    "choose-alexnet": lambda: studies.table("choose-alexnet"),
    "fashion": lambda: studies.table("fashion"),
    "train-rate": train_rate.table,
    "baselines": baselines.table,
    "baselines-tests": baselines.tests_table,
    "checkpoint-stall": checkpoint_stall.table,
    "workers": workers.table,
    "collectives": collectives.table,
    "chaos": lambda: campaign("chaos"),
    "faults": lambda: campaign("faults"),
    "e2e": lambda: campaign("e2e"),
    **{f"sweep-{name}": functools.partial(sweep.table, name) for name in sweep.STUDIES},
}
PAGES = ("recipes", "distributed", "storage", "sweeps", "cluster", "baselines")
FILES = ("README.md", *(f"docs/{page}.md" for page in PAGES))
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def campaign(name: str) -> str:
    """What a campaign of the tests reports of its kept figures."""
    module = importlib.import_module(name)
    return module.report(json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text()))


def filled(text: str) -> str:
    return MARKED.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name in FILES:
        path = ROOT / name
        before = path.read_text()
        after = filled(before)
        if after == before:
            continue
        stale.append(name)
        if not check:
            path.write_text(after)
    if check and stale:
        sys.exit(f"not what the data say: {', '.join(stale)}; run python benchmarks/readme.py")


if __name__ == "__main__":
    main()
