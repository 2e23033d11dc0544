"""How TensorFlow's collectives sum gradients over two workers on one machine.

Packed or not, by ring or as it chooses; beside workers that sum nothing, and one worker with both
cores. LeNet5, 64 images a step in all.

    python -m benchmarks.speed.collectives  # measures, keeps docs/results/collectives.json
    python -m benchmarks.speed.collectives --table  # prints the table of the kept figures

Each measurement starts its processes, trains 50 steps to warm up and then 300, without Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import circumstances, compared, ratio

RESULT = Path(__file__).parents[2] / "docs" / "results" / "collectives.json"
BATCH, WARM_STEPS, STEPS = 64, 50, 300
# What `job.train` uses comes first.
SUMMING = {
    "ring, all gradients in one message": {"implementation": "RING", "bytes_per_pack": 0},
    "ring, in two messages": {"implementation": "RING", "bytes_per_pack": 600_000},
    "ring, a message for each array": {"implementation": "RING", "bytes_per_pack": 1},
    "as TensorFlow chooses, in one message": {"implementation": "AUTO", "bytes_per_pack": 0},
}
# What there is to gain, at most.
APART, ONE = "no sum: two that learn apart", "one worker with both cores"
VARIANTS = (*SUMMING, APART, ONE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rate(variant: str) -> float:
    """Images per second of all workers."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(1 if variant == ONE else 2)]
    workers = []
    for rank in range(len(addresses)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, "--worker", variant],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        sys.exit(f"{variant}: a worker failed")
    rates = [float(one.splitlines()[-1]) for one in said]
    return sum(rates) if variant == APART else rates[0]


def work(variant: str) -> None:
    """One of the workers; prints its rate."""
    import time

    from job.engine.runtime import start_tensorflow

    start_tensorflow(threads=os.cpu_count() if variant == ONE else 1)
    strategy = summing(**SUMMING[variant]) if variant in SUMMING else None
    from job.config.resolve import resolve
    from job.data.catalogue import CATALOGUE
    from job.data.sources import obtain
    from job.data.splits import training_splits
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"])
    batch = BATCH // 2 if variant == APART else BATCH
    config = resolve({"recipe": "notebook", "batch_size": batch})
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"] if strategy else 0
    world = 2 if strategy else 1
    engine = Engine(config, total_steps=1000, strategy=strategy, rank=rank, world=world)
    data = DeviceSplit.load(train)
    rows = batches(example_order(1, 0, len(train)), batch)
    engine.train_span(data, rows[:WARM_STEPS], 0)
    began = time.perf_counter()
    engine.train_span(data, rows[WARM_STEPS : WARM_STEPS + STEPS], WARM_STEPS)
    print(batch * STEPS / (time.perf_counter() - began))


def summing(implementation: str, bytes_per_pack: int) -> Any:
    """The strategy that sums in such a way."""
    import tensorflow as tf

    kinds = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(
            implementation=getattr(kinds, implementation), bytes_per_pack=bytes_per_pack
        )
    )


def measure(rounds: int) -> dict[str, Any]:
    ours, *others = VARIANTS
    found = []
    for _ in range(rounds):
        found.append({variant: rate(variant) for variant in VARIANTS})
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return {
        **circumstances("tensorflow"),
        "ours": statistics.median(one[ours] for one in found),
        "rows": [
            {"variant": other, **compared([(one[ours], one[other]) for one in found])}
            for other in others
        ],
    }


def table() -> str:
    """The kept figures as Markdown."""
    document = json.loads(RESULT.read_text())
    lines = ["| how | images/s | ours against it (min–max) |", "|---|---|---|"]
    lines.append(f"| {next(iter(VARIANTS))} (ours) | {document['ours']:,.0f} | |")
    for row in document["rows"]:
        lines.append(f"| {row['variant']} | {row['theirs']:,.0f} | {ratio(row)} |")
    rounds = len(document["rows"][0]["pairs"])
    return "\n".join(
        [
            *lines,
            "",
            f"LeNet5, {BATCH} images a step, one core for each of two workers; medians of {rounds} "
            f"rounds in turn; {document['date']}, {document['device']}; "
            f"tensorflow {document['versions']['tensorflow']}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    if not arguments.table:
        RESULT.write_text(json.dumps(measure(arguments.rounds), indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
