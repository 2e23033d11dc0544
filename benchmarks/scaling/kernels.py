"""What a training step of LeNet5 consists of: each of oneDNN's kernels, its time and its rate.

    python -m benchmarks.scaling.kernels               # measures, keeps docs/results/kernels.json
    python -m benchmarks.scaling.kernels --table       # prints the table of the kept figures

One thread trains, with one lane, in a process that oneDNN tells each of its calls
(https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html); the whole step is timed in another
one, and sgemm's rate, of which a kernel's is a share, is that of NumPy's products on one thread.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import circumstances, keep

RESULT = Path(__file__).parents[2] / "docs" / "results" / "kernels.json"
BATCH, STEPS, WARM = 32, 60, 10
BEGIN = "steps begin"
VERBOSE = "onednn_verbose,v1,primitive,exec,cpu,"
SIZES = re.compile(r"[a-z]+\d+")
WAYS = {
    "forward_training": "forward",
    "backward_data": "gradient of its images",
    "backward_weights": "gradient of its kernel",
}


def train() -> None:
    """Some steps that are not counted, then those that are; prints the seconds of each."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow(threads=1)
    from job.config.resolve import resolve
    from job.data.catalogue import CATALOGUE
    from job.data.sources import obtain
    from job.data.splits import training_splits
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    rows, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], BATCH * STEPS)
    steps = batches(example_order(1, 0, len(rows)), BATCH)
    engine = Engine(resolve({"recipe": "notebook"}), total_steps=len(steps), parts=1)
    data = DeviceSplit.load(rows)
    engine.train_span(data, steps[:WARM], 0)
    print(BEGIN, flush=True)
    began = time.perf_counter()
    engine.train_span(data, steps, 0)
    print(f"seconds {(time.perf_counter() - began) / len(steps)}", flush=True)


def sgemm() -> float:
    """Operations a second of one thread's products of 1,024 × 1,024; the best of several."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    size = 1024
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    with threadpool_limits(1):
        times = []
        for _ in range(20):
            began = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)


def said(**environment: str) -> list[str]:
    """What the trainer prints from the first step that counts."""
    command = [sys.executable, "-m", __spec__.name, "--train"]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    return lines[lines.index(BEGIN) + 1 :]


def kernel(line: str) -> tuple[str, int, float] | None:
    """A call's name, operations and µs; None for other lines."""
    if not line.startswith(VERBOSE):
        return None
    kind, _, way, *_, shape, milliseconds = line.removeprefix(VERBOSE).split(",")
    name, operations = work(kind, way, shape)
    return name, operations, float(milliseconds) * 1000


def work(kind: str, way: str, shape: str) -> tuple[str, int]:
    """A kernel's name, and its multiplications and additions; 0 where it moves data."""
    sizes = {
        re.match(r"[a-z]+", size)[0]: int(re.search(r"\d+", size)[0])
        for size in SIZES.findall(shape)
    }
    if kind == "convolution":
        name = f"convolution {sizes['ic']} → {sizes['oc']}, {WAYS[way]}"
        names = ("mb", "ic", "oc", "oh", "ow", "kh", "kw")
        return name, 2 * math.prod(sizes[one] for one in names)
    if kind == "inner_product":
        return "dense layers", 2 * math.prod(sizes[one] for one in ("mb", "ic", "oc"))
    if kind == "gemm_api":
        rows, inner, columns = map(int, re.fullmatch(r"(\d+)x(\d+):\d+x(\d+)", shape).groups())
        return "dense layers", 2 * rows * inner * columns
    return {"pooling": "pooling", "reorder": "kernels, turned around"}.get(kind, "others"), 0


def measure() -> dict[str, Any]:
    """The document that is kept."""
    peak = sgemm()
    seconds = statistics.median(float(said()[-1].split()[1]) for _ in range(5))
    times: dict[str, float] = collections.Counter()
    operations: dict[str, int] = collections.Counter()
    for name, count, microseconds in filter(None, map(kernel, said(ONEDNN_VERBOSE="profile_exec"))):
        times[name] += microseconds / STEPS
        operations[name] += count
    rows = [
        {"kernel": name, "us": us, "operations": operations[name] // STEPS}
        for name, us in sorted(times.items(), key=lambda pair: -pair[1])
    ]
    facts = {**circumstances("tensorflow", "keras"), "sgemm": peak, "step_us": seconds * 1e6}
    return {**facts, "batch": BATCH, "kernels": rows}


def lines_of(document: dict[str, Any]) -> Iterator[str]:
    whole, peak = document["step_us"], document["sgemm"]
    inside = sum(row["us"] for row in document["kernels"])
    work_of_all = sum(row["operations"] for row in document["kernels"])
    for row in document["kernels"]:
        rate = row["operations"] / row["us"] * 1e6
        told = f"{rate / 1e9:.0f} GFLOP/s | {rate / peak:.0%}" if row["operations"] else " | "
        yield f"| {row['kernel']} | {row['us']:,.0f} | {row['us'] / whole:.0%} | {told} |"
    rest = whole - inside
    yield f"| all else, TensorFlow's own kernels in it | {rest:,.0f} | {rest / whole:.0%} | | |"
    rate = work_of_all / whole * 1e6
    yield f"| **the step** | {whole:,.0f} | | {rate / 1e9:.0f} GFLOP/s | **{rate / peak:.0%}** |"


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    return "\n".join(
        [
            "| kernel | µs a step | of the step | rate | of sgemm's |",
            "|---|---|---|---|---|",
            *lines_of(document),
            "",
            f"LeNet5, batch {document['batch']}, one thread; sgemm on it: "
            f"{document['sgemm'] / 1e9:.0f} GFLOP/s; {document['date']}, {document['device']}; "
            f"{versions}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train()
        return
    if not arguments.table:
        keep(measure(), arguments.out)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
