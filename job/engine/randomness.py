"""Randomness as pure functions: which example comes when, and which units are dropped.

They depend on the seed, on where training stands and on an example's place in the global batch, and
on nothing else; so a resumed run, or one with another number of workers, sees the same examples and
the same dropout masks. How images are moved is in `job/engine/augment.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

PADDING = -1
# Dropout layers are numbered from 0; this stream is none of theirs. Those of other random layers
# are counted downwards from it.
AUGMENTATION = 2**16 - 1


def example_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of the examples in an epoch: int32 (count,), a permutation of 0 … count - 1.

    Sorts raw Philox output: NumPy keeps bit generators' streams stable between versions, which it
    does not promise for `Generator.permutation` (NEP 19).
    """
    keys = np.random.Philox(key=[seed, epoch]).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int32)


def batches(order: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts an order into int32 (steps, batch_size); the last batch is filled up with `PADDING`."""
    steps = -(-len(order) // batch_size)
    padded = np.full(steps * batch_size, PADDING, np.int32)
    padded[: len(order)] = order
    return padded.reshape(steps, batch_size)


def worker_slice(rows: np.ndarray, rank: int, world: int) -> np.ndarray:
    """A worker's contiguous part of each global batch, (steps, ceil(batch / world)).

    Where the batch can't be divided evenly, the last workers' parts end in `PADDING`.
    """
    steps, batch = rows.shape
    share = -(-batch // world)
    padded = np.full((steps, share * world), PADDING, np.int32)
    padded[:, :batch] = rows
    return padded[:, rank * share : (rank + 1) * share]


def philox(
    seed: tf.Tensor, stream: int, counter: tf.Tensor, rows: tf.Tensor, width: int
) -> tf.Tensor:
    """Float32 (rows, width) in [0, 1), a function of the first three arguments.

    Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2,
    3", SC 2011): four outputs per count, so a row takes ceil(width / 4) counts, and starting where
    a row starts gives it and what follows.

    Args:
        seed: Below 2**31.
        stream: Below 2**16.
        counter: Two integers, the lower half of the count first.
        rows: Number of rows.
        width: Numbers in a row.
    """
    # 2**16 streams beside 2**31 seeds fit one 64-bit key without meeting.
    key = tf.reshape(tf.cast(seed, tf.uint64) * 2**16 + stream, [1])
    noise = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([rows, -(-width // 4) * 4]),
        key=key,
        counter=tf.cast(counter, tf.uint64),
        alg=1,
    )
    return noise[:, :width]


class ExampleNoise:
    """Hands seed, step and batch position of the first local example to one model's dropout layers.

    It does so while the training model's current step is being traced.
    """

    def __init__(self) -> None:
        self._where: tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None = None
        self._asked: dict[int, int] = {}

    @contextlib.contextmanager
    def at(self, seed: tf.Tensor, step: tf.Tensor, first_position: tf.Tensor) -> Iterator[None]:
        """Lets `uniform` be called for the time of the block, for this place in training."""
        self._where = (seed, step, first_position)
        self._asked = {}
        try:
            yield
        finally:
            self._where = None

    def uniform(self, layer: int, rows: tf.Tensor, width: int) -> tf.Tensor:
        """Float32 (rows, width) in [0, 1), a function of (seed, layer, step, position, unit).

        Starting at the count of the first position gives just this worker's rows of the global
        batch's noise.
        """
        seed, step, first_position = self._place()
        counter = tf.stack([first_position * -(-width // 4), step])
        return philox(seed, layer, counter, rows, width)

    def seed(self, layer: int) -> tf.Tensor:
        """Int64 (2,), a function of (seed, layer, step, first position, how often it was asked)."""
        seed, step, first_position = self._place()
        asked = self._asked[layer] = self._asked.get(layer, 0) + 1
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[2],
            key=tf.reshape(seed * 2**16 + (AUGMENTATION - 1 - layer), [1]),
            counter=tf.stack([first_position * 2**16 + asked, step]),
            alg=1,
            dtype=tf.int64,
        )

    def _place(self) -> Iterator[tf.Tensor]:
        if self._where is None:
            raise RuntimeError("a random layer was called in training outside ExampleNoise.at")
        return (tf.cast(value, tf.uint64) for value in self._where)


class ExampleDropout(keras.layers.Layer):
    """Inverted dropout (Srivastava et al., JMLR 2014) whose mask belongs to the example."""

    def __init__(self, rate: float, noise: ExampleNoise, index: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.noise, self.index = rate, noise, index

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """In training, drops units by the examples' noise and scales the others up."""
        if not training or self.rate == 0:
            return inputs
        width = int(np.prod(inputs.shape[1:]))
        uniform = self.noise.uniform(self.index, tf.shape(inputs)[0], width)
        kept = tf.reshape(uniform >= self.rate, tf.shape(inputs))
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))


class StepSeeds(keras.random.SeedGenerator):
    """Seeds for a random layer that draws for all examples of a worker at once.

    A function of the seed, the layer, the step, the worker's first position and of how often the
    layer asked: nothing needs to be kept, and as many workers draw the same again.

    Args:
        noise: Hands over where training stands.
        index: The layer's number.
    """

    def __init__(self, noise: ExampleNoise, index: int) -> None:
        super().__init__(seed=0, name=f"step_seeds_{index}")
        self.noise, self.index = noise, index

    def next(self, ordered: bool = True) -> tf.Tensor:
        """An int64 (2,), as Keras wants it."""
        return self.noise.seed(self.index)
