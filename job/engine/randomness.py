"""Randomness as pure functions: which example comes when, and which units are dropped.

They depend on the seed, on where training stands and on an example's place in the global batch, and
on nothing else; so a resumed run, or one with another number of workers, sees the same examples and
the same dropout masks. How images are moved is in `job/engine/augment.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from job.errors import InputError

PADDING = -1
# Dropout layers are numbered from 0; this stream is none of theirs.
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

    @contextlib.contextmanager
    def at(self, seed: tf.Tensor, step: tf.Tensor, first_position: tf.Tensor) -> Iterator[None]:
        """Lets `uniform` be called for the time of the block, for this place in training."""
        self._where = (seed, step, first_position)
        try:
            yield
        finally:
            self._where = None

    def uniform(self, layer: int, rows: tf.Tensor, width: int) -> tf.Tensor:
        """Float32 (rows, width) in [0, 1), a function of (seed, layer, step, position, unit).

        Starting at the count of the first position gives just this worker's rows of the global
        batch's noise.
        """
        if self._where is None:
            raise RuntimeError("dropout was called in training outside ExampleNoise.at")
        seed, step, first_position = (tf.cast(value, tf.uint64) for value in self._where)
        counter = tf.stack([first_position * -(-width // 4), step])
        return philox(seed, layer, counter, rows, width)


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


def training_twin(
    model: keras.Model,
    noise: ExampleNoise,
    faster: Callable[[keras.layers.Layer], keras.layers.Layer] = lambda layer: layer,
) -> keras.Model:
    """A model that shares all weights with `model`, with `ExampleDropout` for its dropout.

    Each other layer is replaced by what `faster` makes of it. The original stays plain Keras, so
    that it can be saved and opened anywhere.
    """
    indices = iter(range(AUGMENTATION))

    def twin(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.Dropout):
            return ExampleDropout(
                layer.rate, noise, next(indices), name=layer.name, dtype=layer.dtype_policy
            )
        return faster(layer)

    return keras.models.clone_model(model, clone_function=twin)


def check_layers(model: keras.Model) -> None:
    """Raises InputError for a layer that other numbers of workers or processors would change.

    It would compute something else, as each of them sees a part of the batch only.
    """
    for layer in model.layers:
        draws_or_counts = len(layer.non_trainable_variables) > 0
        if draws_or_counts and not isinstance(layer, keras.layers.Dropout):
            raise InputError(
                "--model",
                model.name,
                f"has a {type(layer).__name__} layer, whose result would depend on how a batch is "
                "divided; of layers with statistics or random numbers only Dropout can be trained",
            )
