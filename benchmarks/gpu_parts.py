"""What benchmarks/gpu.py measures in processes of their own. Each prints a figure as a JSON line
as soon as it has it: one that is ended for being late loses only what it had not measured.

    python benchmarks/gpu_parts.py PART SETTINGS     # SETTINGS: the fields of `Task`, as JSON
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from job.config import PRECISIONS, resolve

# A figure under its name.
Found = Iterator[tuple[str, dict[str, Any]]]

SPANS = 3
# Steps of the span that is timed only to know how many make a second, and its warm-up.
PROBE_STEPS = 8
# Spans after which the interrupted run is asked to stop: in the middle of its first epoch.
SPANS_BEFORE_STOP = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """How much is measured, on what.

    Attributes:
        rows: Training rows; None for all.
        batches: Batch sizes of the rates.
        seconds: Of a measured span of steps.
        model: Of the run that is interrupted, and of the sweep's trials.
        resume_rows: Training rows of that run.
        data: Where MNIST is, as `--data` names it.
        folder: Where runs are kept.
    """

    rows: int | None
    batches: tuple[int, ...]
    seconds: float
    model: str
    resume_rows: int
    data: str | None = None
    folder: str = "runs"


def rate_key(precision: str, batch: int, jit: bool) -> str:
    return f"rate-{precision}-{batch}{'-xla' if jit else ''}"


def engine(task: Task) -> Found:
    """The device, the first epoch's loss on it, and what that takes of the GPU's memory."""
    from job.runtime import device_name, start_tensorflow

    kind = start_tensorflow()
    import tensorflow as tf

    # Where it is allowed, float32 products on NVIDIA's tensor cores keep 10 bits of the mantissa.
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    yield "device", {"kind": kind, "device": device_name(kind), "tensor_float_32": tf32}
    yield "loss", first_epoch(task, kind)
    if kind == "gpu":
        yield "memory", gpu_memory()


def loss(task: Task) -> Found:
    """The first epoch's loss on the processors, where CUDA_VISIBLE_DEVICES hides the GPU."""
    from job.runtime import start_tensorflow

    yield "loss-cpu", first_epoch(task, start_tensorflow())


def first_epoch(task: Task, kind: str) -> dict[str, Any]:
    """Mean training loss of the first epoch with the notebook's settings."""
    from job.device_split import DeviceSplit
    from job.engine import Engine
    from job.examples import open_examples
    from job.randomness import batches, example_order
    from job.runtime import USE_XLA

    train, _ = open_examples("mnist", task.data).training(task.rows)
    config = resolve({"recipe": "notebook"})
    rows = batches(example_order(config.seed, 0, len(train)), config.batch_size)
    net = Engine(config, total_steps=len(rows), jit=USE_XLA[kind])
    metrics = net.train_span(DeviceSplit.load(train), rows, 0)
    return {"kind": kind, "loss": float(metrics.loss_sum.sum() / len(train))}


def gpu_memory() -> dict[str, int]:
    """MiB of the first GPU in use, by whomever, and in all."""
    asked = ["nvidia-smi", "--id=0", "--query-gpu=memory.used,memory.total"]
    line = subprocess.check_output([*asked, "--format=csv,noheader,nounits"], text=True)
    used, total = map(int, line.split(","))
    return {"used_mib": used, "total_mib": total}


def rates(task: Task) -> Found:
    """Images/s of LeNet5 for each precision and batch size; those with XLA last, so that an XLA
    that does not work costs no other figure."""
    from job.runtime import start_tensorflow

    start_tensorflow()
    from job.device_split import DeviceSplit
    from job.engine import Engine
    from job.examples import open_examples
    from job.randomness import example_order

    train, _ = open_examples("mnist", task.data).training(task.rows)
    data, order = DeviceSplit.load(train), example_order(1, 0, len(train))
    for jit, precision in itertools.product((False, True), PRECISIONS):
        given = {"recipe": "notebook", "precision": precision}
        net = Engine(resolve(given), total_steps=1, jit=jit)
        for batch in task.batches:

            def seconds_of(steps: int, net: Engine = net, batch: int = batch) -> float:
                rows = np.resize(order, (steps, batch))
                began = time.perf_counter()
                net.train_span(data, rows, 0)
                return time.perf_counter() - began

            # The first call compiles.
            seconds_of(PROBE_STEPS)
            steps = max(1, round(PROBE_STEPS * task.seconds / seconds_of(PROBE_STEPS)))
            spans = [steps * batch / seconds_of(steps) for _ in range(SPANS)]
            figures = {"min": min(spans), "max": max(spans)}
            yield (
                rate_key(precision, batch, jit),
                {"images_per_second": statistics.median(spans), **figures},
            )


def begin(task: Task) -> Found:
    """A run to its end, and the same run until it is interrupted."""
    from job.train import Alone

    yield "undisturbed", trained(task, "undisturbed", Alone())
    asked = itertools.count(1)
    stop = Alone(lambda: signal.SIGINT if next(asked) >= SPANS_BEFORE_STOP else 0)
    yield "interrupted", trained(task, "interrupted", stop)


def resume(task: Task) -> Found:
    """The interrupted run to its end, in a process that knows nothing of its beginning."""
    from job.train import Alone

    yield "resumed", trained(task, "interrupted", Alone())


def trained(task: Task, name: str, outside: Any) -> dict[str, Any]:
    """Trains a run, or goes on with it; returns its last step and the SHA-256 of its weights, which
    is the `weights_sha256` of a finished run."""
    from job.errors import Interrupted
    from job.progress import Silent
    from job.runs import settle
    from job.state import sha256_of
    from job.train import begun, train_and_evaluate

    given = {"recipe": "notebook", "model": task.model, "epochs": 1}
    given |= {"limit_train": task.resume_rows, "data": task.data}
    run = settle({**given, "name": name, "storage": task.folder})
    with begun(run, Silent()):
        try:
            train_and_evaluate(run, Silent(), outside, evaluate=False)
            ended = "finished"
        except Interrupted:
            ended = "interrupted"
    state = run.restore()
    return {
        "ended": ended,
        "step": state.step,
        "weights_sha256": sha256_of(state.weights.values()),
    }


PARTS = {"engine": engine, "loss": loss, "rates": rates, "begin": begin, "resume": resume}


def main() -> None:
    name, settings = sys.argv[1:]
    for key, figures in PARTS[name](Task(**json.loads(settings))):
        print(json.dumps({"key": key, "figures": figures}), flush=True)


if __name__ == "__main__":
    main()
