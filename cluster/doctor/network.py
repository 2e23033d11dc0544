"""How fast machines add numbers up with each other: what the gradients of each training step do."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import tensorflow as tf

# One sum after another within a call, so that starting the call does not count.
SMALL_STEPS, LARGE_STEPS = 20, 2
CALLS = 11
LARGE_BYTES = 8 * 2**20
FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reduced:
    """What was measured.

    Attributes:
        how: NCCL or RING.
        is_right: The sum was that of its parts.
        latency: Seconds for four bytes: the median.
        large_seconds: Seconds for `LARGE_BYTES`: the median.
    """

    how: str
    is_right: bool
    latency: float
    large_seconds: float

    @property
    def bandwidth(self) -> float:
        """Bytes that are added up in a second."""
        return LARGE_BYTES / self.large_seconds


def all_reduce(addresses: list[str], rank: int) -> Reduced:
    """Adds numbers up with the processes at `addresses`; each of them calls this with its rank.

    `cluster.doctor.gpus.gpus`, which starts TensorFlow, is called before. As in training, what is
    added up lies on the devices that compute.
    """
    from cluster.tf_config import set_tf_config
    from job.engine.runtime import distribution, has_gpu

    set_tf_config(addresses, rank)
    world = len(addresses)
    # There is none for a single machine, which has nobody to add up with.
    strategy = cast("tf.distribute.Strategy", distribution(world))
    import tensorflow as tf

    def add_up(value: tf.Tensor, operation: tf.distribute.ReduceOp) -> tf.Tensor:
        # Outside of the replica's context the sum would be brought to the processor; `identity`
        # puts the value on the replica's device.
        here = tf.identity(value)
        return tf.distribute.get_replica_context().all_reduce(operation, here)

    def sums(value: tf.Tensor, steps: int, operation: tf.distribute.ReduceOp) -> tf.Tensor:
        for _ in tf.range(steps):
            value = strategy.run(add_up, args=(value, operation))
        return value

    def seconds(size: int, steps: int) -> float:
        # A mean of ones stays what it is, however often it is taken.
        compiled = tf.function(sums).get_concrete_function(
            tf.TensorSpec([size // FLOAT_BYTES], tf.float32), steps, tf.distribute.ReduceOp.MEAN
        )
        ones = tf.ones([size // FLOAT_BYTES])
        # Only one number leaves a GPU.
        return _median_seconds(lambda: compiled(ones)[0].numpy()) / steps

    total = tf.function(sums)(tf.constant([rank + 1.0]), 1, tf.distribute.ReduceOp.SUM)
    return Reduced(
        how="NCCL" if has_gpu() else "RING",
        is_right=float(total[0]) == world * (world + 1) / 2,
        latency=seconds(FLOAT_BYTES, SMALL_STEPS),
        large_seconds=seconds(LARGE_BYTES, LARGE_STEPS),
    )


def _median_seconds(call: Callable[[], object]) -> float:
    # The first calls find out how to reach the others.
    call()
    found = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)
