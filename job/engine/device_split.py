"""Examples on the device that trains, and how a step takes some of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from job.data.files import Split

PIXELS_IN_INT64 = 8


class DeviceSplit(NamedTuple):
    """A split on the device: `pixels` int64 (n, `row_length`), eight in each, `labels` int64 (n,).

    A pixel takes one byte, and nothing but the rows of a step is read. As uint8 and int32 the whole
    split would cross the bus at each step: TensorFlow has no kernel that gathers uint8 on a GPU,
    and keeps int32 in the processor's memory.
    """

    pixels: tf.Tensor
    labels: tf.Tensor

    @classmethod
    def load(cls, split: Split) -> DeviceSplit:
        """Copies a split to the device; zeros fill up each row to whole numbers."""
        flat = split.images.reshape(len(split), math.prod(split.images.shape[1:]))
        if more := -flat.shape[1] % PIXELS_IN_INT64:
            flat = np.pad(flat, [(0, 0), (0, more)])
        pixels = np.ascontiguousarray(flat).view(np.int64)
        return cls(_on_device(pixels), tf.constant(split.labels.astype(np.int64)))

    def __len__(self) -> int:
        return int(self.labels.shape[0])


def _on_device(array: np.ndarray) -> tf.Tensor:
    """An array as a tensor, which on processors may share its memory: nobody may write to it.

    `tf.constant` would copy it twice, gigabytes perhaps.
    """

    @tf.function
    def taken() -> tf.Tensor:
        return tf.numpy_function(lambda: array, [], array.dtype)

    return tf.identity(taken())


def row_length(image_shape: tuple[int, int, int]) -> int:
    """Numbers that hold an image of this height, width and channels."""
    return -(-math.prod(image_shape) // PIXELS_IN_INT64)


def images_of(
    pixels: tf.Tensor, examples: tf.Tensor, image_shape: tuple[int, int, int]
) -> tf.Tensor:
    """uint8 (batch, *image_shape): the examples of these indices, (batch,)."""
    flat = tf.bitcast(tf.gather(pixels, examples), tf.uint8)
    size, padded = math.prod(image_shape), row_length(image_shape) * PIXELS_IN_INT64
    if size < padded:
        flat = tf.reshape(flat, [-1, padded])[:, :size]
    return tf.reshape(flat, [-1, *image_shape])
