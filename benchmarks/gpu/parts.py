"""What gpu.py measures in processes of their own.

Each prints a figure as a JSON line as soon as it has it: one that is ended for being late loses
only what it had not measured.

    python -m benchmarks.gpu.parts PART SETTINGS     # SETTINGS: the fields of `Task`, as JSON
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job.config.config import TrainConfig
from job.config.resolve import resolve
from job.config.xla import launched

if TYPE_CHECKING:
    from job.data.files import Split
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine

# A figure under its name.
Found = Iterator[tuple[str, dict[str, Any]]]

SPANS = 3
# Steps of the span that is timed only to know how many make a second, and its warm-up.
PROBE_STEPS = 8
# Spans after which the interrupted run is asked to stop: in the middle of its first epoch.
SPANS_BEFORE_STOP = 3
# AlexNet's batch in the quick recipe, and examples enough for it.
ALEXNET_BATCH, ALEXNET_ROWS = 128, 4_096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """How much is measured, on what.

    Attributes:
        rows: Training rows; None for all.
        batches: LeNet5's batch sizes.
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


class Rate(NamedTuple):
    """What a rate is measured of.

    The defaults are those of a user who says nothing, with XLA where a run has it then.
    """

    model: str
    batch: int
    precision: str = "float32"
    is_deterministic: bool = True
    has_xla: bool | None = None

    @property
    def key(self) -> str:
        ways = {"any": not self.is_deterministic, "no-xla": self.has_xla is False}
        return "-".join(
            ["rate", self.model, str(self.batch), self.precision, *(w for w in ways if ways[w])]
        )

    @property
    def config(self) -> TrainConfig:
        return resolve(
            {
                "recipe": "notebook",
                "model": self.model,
                "batch_size": self.batch,
                "precision": self.precision,
                "deterministic": self.is_deterministic,
                "xla": self.has_xla,
                **({"dataset": "cifar10"} if self.model == "alexnet" else {}),
            }
        )


def rate_cases(batches: Sequence[int]) -> list[Rate]:
    """Each of a user's choices alone, against the defaults."""
    return [
        case
        for model, batch in [*(("lenet5", one) for one in batches), ("alexnet", ALEXNET_BATCH)]
        for case in (
            Rate(model, batch),
            Rate(model, batch, is_deterministic=False),
            # It has no XLA by default: there is no deterministic gradient of max pooling in it.
            *([Rate(model, batch, has_xla=False)] if model != "alexnet" else []),
            Rate(model, batch, precision="mixed_bfloat16"),
        )
    ]


def keras_key(batch: int) -> str:
    return f"rate-keras-{batch}"


def engine(task: Task) -> Found:
    """The device, the first epoch's loss on it, and what that takes of the GPU's memory."""
    from job.engine.accelerator import driver_version
    from job.engine.runtime import device_name, start_tensorflow

    kind = start_tensorflow()
    import tensorflow as tf

    found = {"kind": kind, "device": device_name(kind)}
    if kind == "gpu":
        [gpu] = tf.config.get_visible_devices("GPU")
        details = tf.config.experimental.get_device_details(gpu)
        capability = details["compute_capability"]
        # Where it is allowed, and since this capability, float32 products are computed on tensor
        # cores in TF32, with 10 bits of mantissa. The switch says nothing of the card.
        allowed = tf.config.experimental.tensor_float_32_execution_enabled()
        found["tf32"] = allowed and capability >= (8, 0)
        found["compute_capability"] = ".".join(map(str, capability))
        found["driver"] = driver_version()
    yield "device", found
    yield "loss", first_epoch(task, kind)
    if kind == "gpu":
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        yield "memory", {"peak_mib": peak / 2**20}


def loss(task: Task) -> Found:
    """The first epoch's loss on the processors."""
    from job.engine.runtime import start_tensorflow

    yield "loss-cpu", first_epoch(task, start_tensorflow(device="cpu"))


def first_epoch(task: Task, kind: str) -> dict[str, Any]:
    """Mean training loss of the first epoch with the notebook's settings."""
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order
    from job.engine.runtime import compute_capability

    train = training_rows(task)
    config = launched(resolve({"recipe": "notebook"}), kind, compute_capability())
    rows = batches(example_order(config.seed, 0, len(train)), config.batch_size)
    net = Engine(config, total_steps=len(rows))
    metrics = net.train_span(DeviceSplit.load(train), rows, 0)
    return {"kind": kind, "loss": float(metrics.loss_sum.sum() / len(train))}


def training_rows(task: Task) -> Split:
    from job.data.examples import open_examples

    return open_examples("mnist", task.data).training(task.rows)[0]


def rates(task: Task) -> Found:
    """Images/s of the deterministic cases."""
    yield from measured([c for c in rate_cases(task.batches) if c.is_deterministic], task)


def any_order(task: Task) -> Found:
    """Images/s of the cases whose sums may be made in any order, which a process decides once."""
    yield from measured([c for c in rate_cases(task.batches) if not c.is_deterministic], task)


def measured(cases: Sequence[Rate], task: Task) -> Found:
    """The rates of cases that are equally deterministic.

    Those without XLA come first, so that an XLA that does not work costs no other figure.
    """
    from job.engine.runtime import compute_capability, start_tensorflow

    kind = start_tensorflow(deterministic=cases[0].is_deterministic)
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine

    mnist, noise = training_rows(task), photographs(ALEXNET_ROWS)
    in_order = sorted(cases, key=lambda c: (c.has_xla is None, c.model, c.precision))
    # An engine takes batches of any size.
    for _, group in itertools.groupby(in_order, key=lambda c: c._replace(batch=0)):
        same = list(group)
        split = noise if same[0].model == "alexnet" else mnist
        data = DeviceSplit.load(split)
        config = launched(same[0].config, kind, compute_capability())
        net = Engine(config, total_steps=1, image_shape=split.images.shape[1:])
        for case in same:
            train = functools.partial(trained_steps, net, data, case.batch)
            yield case.key, rate_of(train, case.batch, task.seconds)


def trained_steps(net: Engine, data: DeviceSplit, batch: int, steps: int) -> None:
    rows = np.resize(np.arange(len(data), dtype=np.int32), (steps, batch))
    net.train_span(data, rows, 0)


def photographs(count: int) -> Split:
    """Noise of CIFAR-10's size: how fast a net trains does not depend on what it sees."""
    from job.data.files import Split

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, 10, count).astype(np.int32))


def rate_of(train: Callable[[int], None], batch: int, seconds: float) -> dict[str, float]:
    """Images/s in spans of about so many seconds. `train` gets a number of steps."""

    def seconds_of(steps: int) -> float:
        began = time.perf_counter()
        train(steps)
        return time.perf_counter() - began

    # The first call compiles.
    seconds_of(PROBE_STEPS)
    steps = max(1, round(PROBE_STEPS * seconds / seconds_of(PROBE_STEPS)))
    return summary([steps * batch / seconds_of(steps) for _ in range(SPANS)])


def summary(rates: Sequence[float]) -> dict[str, float]:
    return {"images_per_second": statistics.median(rates), "min": min(rates), "max": max(rates)}


def keras(task: Task) -> Found:
    """What a user of Keras writes: `compile`, then `fit` on arrays, with Keras' defaults.

    Of whole epochs after the first, since each `fit` has to get going.
    """
    from job.engine.runtime import import_tensorflow

    import_tensorflow()
    from keras.callbacks import LambdaCallback

    from job.models import build_model

    split = training_rows(task)
    images = split.images.astype("float32") / 255
    for batch in task.batches:
        net = build_model("lenet5", seed=1)
        net.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        times: list[float] = []
        note = LambdaCallback(on_epoch_end=lambda *_, to=times: to.append(time.perf_counter()))
        whole = {"epochs": 1 + SPANS, "batch_size": batch, "verbose": 0, "callbacks": [note]}
        net.fit(images, split.labels, **whole)
        seconds = (end - start for start, end in itertools.pairwise(times))
        yield keras_key(batch), summary([len(images) / one for one in seconds])


def begin(task: Task) -> Found:
    """A run to its end, and the same run until it is interrupted."""
    from job.training.supervisor import Unsupervised

    yield "undisturbed", trained(task, "undisturbed", Unsupervised())
    asked = itertools.count(1)
    stop = Unsupervised(lambda: signal.SIGINT if next(asked) >= SPANS_BEFORE_STOP else 0)
    yield "interrupted", trained(task, "interrupted", stop)


def resume(task: Task) -> Found:
    """The interrupted run to its end, in a process that knows nothing of its beginning."""
    from job.training.supervisor import Unsupervised

    yield "resumed", trained(task, "interrupted", Unsupervised())


def trained(task: Task, name: str, supervisor: Any) -> dict[str, Any]:
    """Trains a run, or goes on with it; returns its last step and the SHA-256 of its weights.

    That is the `weights_sha256` of a finished run.
    """
    from job.errors import StopRequestedError
    from job.runs.run import prepare_run
    from job.runs.state import sha256_of
    from job.train import train_and_evaluate, training_session
    from job.training.progress import Silent

    given = {"recipe": "notebook", "model": task.model, "epochs": 1}
    given |= {"limit_train": task.resume_rows, "data": task.data}
    run = prepare_run({**given, "name": name, "storage": task.folder})
    with training_session(run, Silent()) as (run, examples):
        try:
            train_and_evaluate(run, examples, Silent(), supervisor, evaluate=False)
            ended = "finished"
        except StopRequestedError:
            ended = "interrupted"
    state = run.restore()
    return {
        "ended": ended,
        "step": state.step,
        "weights_sha256": sha256_of(state.weights.values()),
    }


PARTS = {
    "engine": engine,
    "loss": loss,
    "rates": rates,
    "any-order": any_order,
    "keras": keras,
    "begin": begin,
    "resume": resume,
}


def main() -> None:
    name, settings = sys.argv[1:]
    for key, figures in PARTS[name](Task(**json.loads(settings))):
        print(json.dumps({"key": key, "figures": figures}), flush=True)


if __name__ == "__main__":
    main()
