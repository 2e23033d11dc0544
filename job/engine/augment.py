"""Training images, moved and mirrored anew in each epoch.

What becomes of an image is a pure function of the seed, the epoch and the image's index in the
training part. So a resumed run, another batch size or another number of workers sees the same
images; and nothing needs to be kept.

Both are the augmentation of Krizhevsky et al., "ImageNet classification with deep convolutional
neural networks" (2012), section 4.1, with the zero padding that became usual for small images (He
et al., "Deep residual learning", 2016, section 4.2).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from job.engine.randomness import AUGMENTATION, philox


def draws(seed: tf.Tensor, epoch: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Float32 (count, 4) in [0, 1): row i is a function of (seed, epoch, i).

    One count of the generator makes the four numbers of a row.
    """
    return philox(seed, AUGMENTATION, tf.stack([tf.zeros_like(epoch), epoch]), count, 4)


def augmented(images: tf.Tensor, drawn: tf.Tensor, *, shift: int, flip: bool) -> tf.Tensor:
    """Moves each image by a whole number of pixels, then mirrors half of them.

    Args:
        images: (batch, height, width, channels).
        drawn: The images' rows of `draws`.
        shift: The most pixels by which an image moves, up or down and sideways, each distance
            alike; zeros come in at its edges.
        flip: Mirror left to right, with probability one half.

    Returns:
        The same shape and type.
    """
    if not (shift or flip):
        return images
    height, width = images.shape[1:3]
    # int64: a GPU keeps int32 in the processor's memory, and would wait for it at every step.
    rows, columns = (tf.constant(np.arange(size)[None]) for size in (height, width))
    columns = tf.where(drawn[:, 2:3] < 0.5, columns, columns[:, ::-1]) if flip else columns
    if shift:
        images = tf.pad(images, [[0, 0], [shift, shift], [shift, shift], [0, 0]])
        offsets = tf.cast(drawn[:, :2] * (2 * shift + 1), tf.int64)
        rows, columns = rows + offsets[:, :1], columns + offsets[:, 1:]
        images = tf.gather(images, rows, axis=1, batch_dims=1)
    # Rows are gathered whole, which is twice as fast as pixels: columns become rows meanwhile.
    turned = tf.transpose(images, [0, 2, 1, 3])
    return tf.transpose(tf.gather(turned, columns, axis=1, batch_dims=1), [0, 2, 1, 3])
