"""Writes what the documents take from data and code: tables, figures, docs/reference.md.

Tables stand between markers in README.md and the pages of docs. Nothing is measured: the data are
those of docs/results; `make results` makes them anew.

    python -m docs.make.pages            # rewrites; `make docs` is the same
    python -m docs.make.pages --check    # exit code 1 where something is not what it is made from
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import bench
from benchmarks.accuracy import baselines, best, fashion, notebook_story, studies
from benchmarks.commands import install, listing, memory
from benchmarks.gpu import table as gpu_table
from benchmarks.scaling import kernels, lanes
from benchmarks.scaling import tables as scaling_tables
from benchmarks.speed import (
    ablation,
    checkpoint_stall,
    collectives,
    million,
    predict_rate,
    startup,
    sweep,
    to_accuracy,
    train_rate,
    workers,
)
from docs.make import figures, messages, reference, terminal

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
TABLES = {
    "notebook": lambda: studies.table("notebook"),
    "quick": lambda: studies.table("quick"),
    "best": lambda: kept(lambda _: studies.table("best"), RESULTS / "best.json"),
    "best-tests": lambda: kept(lambda _: best.table(), best.COMPARED),
    **{
        f"best-sweep-{name}": lambda name=name: kept(best.sweep_table, best.kept(name))
        for name in best.SEARCHES
    },
    "choose-quick": lambda: studies.table("choose-quick"),
    "sweep-winner": lambda: studies.table("sweep-winner"),
    "choose-alexnet": lambda: studies.table("choose-alexnet"),
    "fashion-best": lambda: studies.table("fashion-best"),
    "fine-tuning": lambda: studies.table("fine-tuning"),
    "million": million.table,
    "kernels": lambda: kept(kernels.table, kernels.RESULT),
    "fashion": fashion.table,
    "fashion-tests": fashion.tests_table,
    "train-rate": lambda: train_rate.table(train_rate.RESULT),
    "train-rate-avx2": lambda: train_rate.table(RESULTS / "train_rate-avx2.json"),
    "bench": bench.whole,
    "bench-short": bench.short,
    "ablation": lambda: kept(ablation.table, ablation.RESULT),
    "startup": lambda: kept(startup.table, startup.RESULT),
    "predict-rate": lambda: kept(predict_rate.table, predict_rate.RESULT),
    "to-accuracy": lambda: kept(to_accuracy.table, to_accuracy.RESULT),
    "baselines": baselines.table,
    "baselines-tests": baselines.tests_table,
    "checkpoint-stall": checkpoint_stall.table,
    "workers": lambda: workers.table(workers.result_of(2)),
    "collectives": collectives.table,
    "lanes": lambda: kept(lanes.table, lanes.RESULT),
    "listing": lambda: kept(listing.table, listing.RESULT),
    "install": lambda: kept(install.table, install.RESULT),
    "memory": lambda: kept(memory.table, memory.RESULT),
    "gpu": gpu_table.table,
    "scaling-fit": scaling_tables.fit_table,
    "scaling-paper": scaling_tables.paper_table,
    "chaos": lambda: campaign("chaos"),
    "faults": lambda: campaign("faults"),
    "e2e": lambda: campaign("e2e"),
    "notebook-ffnn": notebook_story.ffnn_table,
    "notebook-leak": notebook_story.leak_table,
    "messages-system": messages.of_the_system,
    **{f"messages-{name}": functools.partial(messages.listed, name) for name in messages.GROUPS},
    **{f"sweep-{name}": functools.partial(sweep.table, name) for name in sweep.STUDIES},
}
CAMPAIGNS = {
    "chaos": "tests.campaigns.chaos",
    "faults": "tests.campaigns.faults",
    "e2e": "tests.lab.e2e",
}
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def campaign(name: str) -> str:
    """What a campaign of the tests reports of its kept figures."""
    module = importlib.import_module(CAMPAIGNS[name])
    return module.report(json.loads((RESULTS / f"{name}.json").read_text()))


def kept(table: Callable[[Path], str], result: Path) -> str:
    return table(result) if result.exists() else "Not measured."


def filled(text: str) -> str:
    return MARKED.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def made() -> Iterator[tuple[Path, bytes]]:
    """Every file that has something from data or code, with what it should be."""
    generated = ROOT / "docs" / "reference.md"
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if path != generated:
            yield path, filled(path.read_text()).encode()
    yield generated, reference.page().encode()
    yield ROOT / "docs" / "terminal.svg", terminal.picture()
    for name, draw in figures.FIGURES.items():
        yield ROOT / "docs" / "studies" / name, draw()


def is_current(path: Path, content: bytes) -> bool:
    """Whether a file is as it should be; pictures by pixels: packing depends on the processor."""
    if not path.exists():
        return False
    before = path.read_bytes()
    if path.suffix != ".png":
        return before == content
    old, new = (np.asarray(Image.open(io.BytesIO(picture))) for picture in (before, content))
    return np.array_equal(old, new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path, content in made():
        if not is_current(path, content):
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_bytes(content)
    if check and stale:
        sys.exit(f"not what the data say: {', '.join(stale)}; run make docs")


if __name__ == "__main__":
    main()
