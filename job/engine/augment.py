"""Training images, moved, mirrored, turned and bent anew in each epoch.

What becomes of an image is a pure function of the seed, the epoch and the image's index in the
training part. So a resumed run, another batch size or another number of workers sees the same
images; and nothing needs to be kept.

Moving and mirroring are the augmentation of Krizhevsky et al., "ImageNet classification with deep
convolutional neural networks" (2012), section 4.1, with the zero padding that became usual for
small images (He et al., "Deep residual learning", 2016, section 4.2). Turning, scaling and bending
are those of Simard et al., "Best practices for convolutional neural networks applied to visual
document analysis" (2003), section 2.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from job.config.config import TrainConfig
from job.engine.randomness import AUGMENTATION, philox

# Of each image: two numbers for the distances it moves, one for the mirror, one is left.
MOVES = 4
# And of one that is warped: its angle, the scale of its height and that of its width, one is left;
# then the pulls, down and to the right, at the knots of a grid over the image.
WARPS = 4
KNOTS = 6
# Simard's Gaussian has a standard deviation of 4 pixels, a seventh of an image's side.
SMOOTHNESS = 1 / 7
# Counts of the generator from here on are no image's moves.
FIRST_WARP = 2**40


class Augmentation(NamedTuple):
    """What may become of an image.

    Attributes:
        shift: The most pixels by which it moves, up or down and sideways, each distance alike;
            zeros come in at its edges.
        flip: Whether half of the images are mirrored, left to right.
        rotate: The most degrees by which it is turned, either way, each angle alike.
        scale: The greatest share by which its height and its width grow or shrink, each alike.
        elastic: Pixels by which its points are pulled away, smoothly: their standard deviation.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    elastic: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> Augmentation:
        """That of a run's settings."""
        return cls(
            config.augment_shift,
            config.augment_flip == "horizontal",
            config.augment_rotate,
            config.augment_scale,
            config.augment_elastic,
        )

    @property
    def warps(self) -> bool:
        """Whether it takes an image's points to places between its pixels."""
        return self.rotate > 0 or self.scale > 0 or self.elastic > 0


def draws(seed: tf.Tensor, epoch: tf.Tensor, count: tf.Tensor, *, warps: bool = False) -> tf.Tensor:
    """Float32 (count, 4) in [0, 1), or (count, 80): row i is a function of (seed, epoch, i).

    One count of the generator makes four numbers of a row.

    Args:
        seed: That of the run.
        epoch: From 0.
        count: Number of images.
        warps: Draw what warps images too.
    """
    zero = tf.zeros_like(epoch)
    moves = philox(seed, AUGMENTATION, tf.stack([zero, epoch]), count, MOVES)
    if not warps:
        return moves
    counter = tf.stack([zero + FIRST_WARP, epoch])
    return tf.concat(
        [moves, philox(seed, AUGMENTATION, counter, count, WARPS + 2 * KNOTS**2)], axis=1
    )


def augmented(images: tf.Tensor, drawn: tf.Tensor, how: Augmentation) -> tf.Tensor:
    """Moves and mirrors each image, then turns, scales and bends it.

    Args:
        images: (batch, height, width, channels); float32 where `how` warps.
        drawn: The images' rows of `draws`.
        how: What may become of them.

    Returns:
        The same shape and type.
    """
    images = _moved(images, drawn[:, :MOVES], how.shift, how.flip)
    return _warped(images, drawn[:, MOVES:], how) if how.warps else images


def _moved(images: tf.Tensor, drawn: tf.Tensor, shift: int, flip: bool) -> tf.Tensor:
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


def _warped(images: tf.Tensor, drawn: tf.Tensor, how: Augmentation) -> tf.Tensor:
    """Takes each pixel from where `_places` says, between four pixels; outside are zeros."""
    _, height, width, channels = images.shape
    down, right = _places(drawn, height, width, how)
    # One row and column of zeros around, where everything from outside lands.
    down = tf.clip_by_value(down, -1.0, float(height))
    right = tf.clip_by_value(right, -1.0, float(width))
    top, left = tf.floor(down), tf.floor(right)
    by_row, by_column = (down - top)[..., None], (right - left)[..., None]
    padded = tf.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]])
    # The four neighbours lie side by side, so that one number finds them.
    rows, columns = height + 2, width + 2
    corners = [padded[:, i : i + rows, j : j + columns] for i in (0, 1) for j in (0, 1)]
    flat = tf.reshape(tf.concat(corners, -1), [-1, rows * columns, 4 * channels])
    index = tf.cast((top + 1) * columns + left + 1, tf.int64)
    a, b, c, d = tf.split(tf.gather(flat, index, axis=1, batch_dims=1), 4, axis=-1)
    upper, lower = a + (b - a) * by_column, c + (d - c) * by_column
    return tf.reshape(upper + (lower - upper) * by_row, tf.shape(images))


def _places(
    drawn: tf.Tensor, height: int, width: int, how: Augmentation
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows and columns (batch, height × width) in an image from which its pixels are taken."""
    centre = (height - 1) / 2, (width - 1) / 2
    grid = np.indices((height, width), np.float32).reshape(2, 1, -1)
    y, x = (tf.constant(axis - middle) for axis, middle in zip(grid, centre, strict=True))
    either_way = 2 * drawn - 1
    angle = either_way[:, :1] * math.radians(how.rotate)
    y, x = (
        (tf.cos(angle) * y - tf.sin(angle) * x) / (1 + either_way[:, 1:2] * how.scale),
        (tf.sin(angle) * y + tf.cos(angle) * x) / (1 + either_way[:, 2:3] * how.scale),
    )
    if how.elastic:
        pulls = tf.reshape(either_way[:, WARPS:], [-1, KNOTS**2])
        field = tf.reshape(pulls @ tf.constant(_smoothing(height, width)), [-1, 2, height * width])
        y, x = y + how.elastic * field[:, 0], x + how.elastic * field[:, 1]
    return y + centre[0], x + centre[1]


@functools.cache
def _smoothing(height: int, width: int) -> np.ndarray:
    """Float32 (knots, pixels): makes a field of standard deviation 1 of numbers in [-1, 1)."""
    knots = np.linspace(0, 1, KNOTS)
    down, right = (
        np.exp(-(((np.linspace(0, 1, size) - knots[:, None]) / SMOOTHNESS) ** 2) / 2)
        for size in (height, width)
    )
    both = np.einsum("ay,bx->abyx", down, right).reshape(KNOTS**2, -1)
    # Uniform numbers in [-1, 1) have a variance of one third.
    return (both * np.sqrt(3) / np.linalg.norm(both, axis=0)).astype(np.float32)
