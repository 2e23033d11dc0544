"""What lanes cost: images/s and the work of an image by lanes, model and batch size, in turn.

    python -m benchmarks.scaling.lanes               # measures, keeps docs/results/lanes.json
    python -m benchmarks.scaling.lanes --table       # prints the table of the kept figures

More lanes than this machine has threads do the work that a larger machine has to do; how fast that
would be is not told. Work is the processors' time for an image, of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import Side, circumstances, compared, in_turn, keep, kept_rounds, ratio
from job.data.catalogue import CATALOGUE
from job.data.sources import obtain
from job.data.splits import training_splits
from job.models import IMAGE_SHAPE
from job.models.work import lanes_for, multiplications

RESULT = Path(__file__).parents[2] / "docs" / "results" / "lanes.json"
CASES = [("lenet5", 32), ("lenet5", 128), ("ffnn", 32), ("ffnn", 128)]
IMAGES = {"lenet5": 3_840, "ffnn": 7_680}
THREADS = 16
ROUNDS = 7
# What the others are held against.
TWO = "2"
SHARED = "1, whose operations two threads share"


def lanes_of(model: str, batch: int) -> dict[str, int]:
    """The lanes that are measured, by what they are called; the rule's last."""
    chosen = lanes_for(THREADS, batch, multiplications(model, IMAGE_SHAPE, 10))
    return {TWO: 2, "1": 1, SHARED: 1, "8": 8, str(THREADS): THREADS, "chosen": chosen}


def side(model: str, batch: int, variant: str) -> None:
    """Trains an epoch for each line from stdin."""
    from job.engine.runtime import share_operations, start_tensorflow

    start_tensorflow()
    share_operations(2 if variant == SHARED else 1)
    from job.config.resolve import resolve
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    rows, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], IMAGES[model])
    steps = batches(example_order(1, 0, len(rows)), batch)
    config = resolve({"model": model, "batch_size": batch, "recipe": "notebook"})
    parts = lanes_of(model, batch)[variant]
    engine = Engine(config, total_steps=len(steps), parts=parts)
    data = DeviceSplit.load(rows)
    for _ in sys.stdin:
        began, work = time.perf_counter(), time.process_time()
        engine.train_span(data, steps, 0)
        seconds, work = time.perf_counter() - began, time.process_time() - work
        figures = {"per_second": len(rows) / seconds, "work_us": work / len(rows) * 1e6}
        print(json.dumps(figures), flush=True)


def case(model: str, batch: int, rounds: int) -> dict[str, Any]:
    """All numbers of lanes in turn."""
    lanes = lanes_of(model, batch)
    command = [sys.executable, "-m", __spec__.name, "--side", model, str(batch)]
    found = in_turn({name: Side([*command, name]) for name in lanes}, rounds)
    rows = [
        {
            **{"model": model, "batch": batch, "lanes": count, "variant": name},
            "per_second": statistics.median(one[name]["per_second"] for one in found),
            **compared([(one[name]["work_us"], one[TWO]["work_us"]) for one in found]),
        }
        for name, count in lanes.items()
    ]
    return {"rows": rows}


def measure(rounds: int) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next case."""
    found = kept_rounds(f"lanes-{rounds}", len(CASES), lambda number: case(*CASES[number], rounds))
    rows = [row for one in found for row in one["rows"]]
    return {**circumstances("tensorflow", "keras"), "rows": rows}


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    lines = [
        "| model | batch | lanes | images/s on two threads | work of an image, µs | "
        "times that of two lanes |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        chosen = row["variant"] == "chosen"
        name = f"**{row['lanes']}**, chosen for {THREADS} threads" if chosen else row["variant"]
        lines.append(
            f"| {row['model']} | {row['batch']} | {name} | {row['per_second']:,.0f} "
            f"| {row['ours']:.0f} | {ratio(row)} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"Medians of {len(document['rows'][0]['pairs'])} rounds in turn (min–max); "
        f"{document['date']}, {document['device']}; {versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        model, batch, variant = arguments.side
        side(model, int(batch), variant)
        return
    if not arguments.table:
        keep(measure(arguments.rounds), arguments.out, f"lanes-{arguments.rounds}")
    print(table(arguments.out))


if __name__ == "__main__":
    main()
