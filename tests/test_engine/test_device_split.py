"""Examples on the device come back as they were."""

from __future__ import annotations

import numpy as np
import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import tensorflow as tf  # noqa: E402

from job.data.files import Split  # noqa: E402
from job.engine.device_split import DeviceSplit, images_of, row_length  # noqa: E402

COUNT = 7


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (3, 5, 1), (1, 1, 1), (9, 9, 3)])
def test_images_come_back_as_they_were(shape):
    """Whether or not their bytes fill whole numbers of int64."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (COUNT, *shape), np.uint8)
    split = DeviceSplit.load(Split(images, np.arange(COUNT, dtype=np.int32)))
    chosen = np.array([6, 0, 3, 3])
    found = images_of(split.pixels, tf.constant(chosen), shape)
    assert found.dtype == tf.uint8
    assert np.array_equal(found, images[chosen])
    assert split.labels.numpy().tolist() == list(range(COUNT))
    assert len(split) == COUNT


def test_a_pixel_takes_one_byte():
    images = np.zeros((COUNT, 28, 28, 1), np.uint8)
    split = DeviceSplit.load(Split(images, np.zeros(COUNT, np.int32)))
    assert split.pixels.shape == (COUNT, row_length((28, 28, 1)))
    assert split.pixels.numpy().nbytes == images.nbytes
