"""One of the workers whose steps are timed.

    TF_CONFIG=… python -m benchmarks.scaling.worker MODEL WORKERS RANK

It reads requests from stdin, a JSON object on each line: how many `steps`, from which `first`, of
`batch` images of all workers; and answers each with the seconds that they took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.scaling.model import EMPTY

EXAMPLES = 24_000


def work(model: str, world: int, rank: int) -> None:
    """One of the workers; answers each request with the seconds that it took."""
    from job.engine.runtime import distribution, start_tensorflow

    start_tensorflow(threads=1)
    strategy = distribution(world)
    train = summing(strategy) if model == EMPTY else training(model, strategy, rank, world)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        train(request)
        print(time.perf_counter() - began, flush=True)


def training(model: str, strategy: Any, rank: int, world: int) -> Callable[[dict[str, int]], Any]:
    """Trains a span of as many steps as a request says, from its first, at its batch."""
    from job.config.resolve import resolve
    from job.data.catalogue import CATALOGUE
    from job.data.sources import obtain
    from job.data.splits import training_splits
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    split, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], EXAMPLES)
    config = resolve({"recipe": "notebook", "model": model})
    engine = Engine(config, total_steps=1_000_000, strategy=strategy, rank=rank, world=world)
    data, order = DeviceSplit.load(split), example_order(1, 0, len(split))

    def train(request: dict[str, int]) -> None:
        rows = batches(order, request["batch"])[:-1]
        rows = rows.take(range(request["steps"]), axis=0, mode="wrap")
        engine.train_span(data, rows, request["first"])

    return train


def summing(strategy: Any) -> Callable[[dict[str, int]], Any]:
    """Sums one number over the workers, as often as a request says, in one compiled loop."""
    import tensorflow as tf

    def one(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        # The strategy asks where an array is, which that of a loop doesn't say.
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

    @tf.function
    def sums(steps: tf.Tensor) -> tf.Tensor:
        value = tf.zeros([])
        for _ in tf.range(steps):
            result = strategy.run(one, args=(value,))
            value = strategy.experimental_local_results(result)[0]
        return value

    return lambda request: sums(tf.constant(request["steps"])).numpy()


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
