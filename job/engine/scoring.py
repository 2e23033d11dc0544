"""Scaling, loss and hits, shared by training and testing, and tests outside of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from job.data.files import Split
from job.engine.runtime import has_gpu, lanes

# So many at once, over all lanes: with 1,000 a run holds 85 MB more, and validates a tenth faster.
EVALUATION_BATCH = 250
# So many in each lane: it is as fast as with 250, and the end of a run holds 17 MB less.
SCORED_BATCH = 100


def scale(images: tf.Tensor) -> tf.Tensor:
    """uint8 pixels to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def cross_entropy(labels: tf.Tensor, probabilities: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Per-example cross-entropy (batch,) against one-hot labels, smoothed if wanted.

    Smoothing is that of Szegedy et al., CVPR 2016.

    Keras finds the logits behind the softmax, so that saturated outputs lose nothing.
    """
    if not smoothing and not has_gpu():
        return keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    classes = probabilities.shape[-1]
    targets = tf.one_hot(labels, classes)
    if not has_gpu():
        return keras.losses.categorical_crossentropy(
            targets, probabilities, label_smoothing=smoothing
        )
    smooth = targets * (1 - smoothing) + smoothing / classes
    return cross_entropy_of_logits(_logits(probabilities), smooth)


@tf.custom_gradient
def cross_entropy_of_logits(
    logits: tf.Tensor, targets: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """What Keras computes, in the form that suits GPUs.

    TensorFlow's own gradient sorts where operations have to be deterministic, and waits for the GPU
    at every step.
    """
    log_probabilities = tf.nn.log_softmax(logits)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return (tf.exp(log_probabilities) - targets) * upstream[:, None], None

    return -tf.reduce_sum(targets * log_probabilities, axis=-1), gradient


def _logits(probabilities: tf.Tensor) -> tf.Tensor:
    """What the softmax at the end of a model was given."""
    if probabilities.op.type != "Softmax":
        raise ValueError(f"a model has to end in a softmax, not in {probabilities.op.type}")
    return probabilities.op.inputs[0]


def count_correct(labels: tf.Tensor, probabilities: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """How many of the `real` examples have their label as the most probable one, float32 ()."""
    hits = tf.equal(tf.argmax(probabilities, axis=1, output_type=labels.dtype), labels)
    return tf.reduce_sum(tf.cast(tf.logical_and(hits, real), tf.float32))


class Scores(NamedTuple):
    """Mean cross-entropy and accuracy, probabilities (n, classes), and the seconds they took."""

    loss: float
    accuracy: float
    probabilities: np.ndarray
    seconds: float


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Class probabilities float32 (n, classes) of uint8 images (n, height, width, channels)."""
    unknown = np.zeros(len(images), np.int32)
    return score(model, Split(images, unknown)).probabilities


def score(model: keras.Model, examples: Split) -> Scores:
    """Evaluates a model outside of training, by the formula of `Engine.evaluate`."""
    return Scorer(model)(examples)


class Scorer:
    """Evaluates a model, whose weights may change, outside of training; the first call compiles."""

    def __init__(self, model: keras.Model) -> None:
        def forward(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            probabilities = model(scale(images), training=False)
            return probabilities, cross_entropy(labels, probabilities)

        self._forward = tf.function(forward, reduce_retracing=True)

    def __call__(self, examples: Split) -> Scores:
        """Scores all examples, `SCORED_BATCH` at a time, as many batches at once as lanes."""
        began = time.perf_counter()

        def batch_from(start: int) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = (part[start : start + SCORED_BATCH] for part in examples)
            return self._forward(tf.constant(images), tf.constant(labels))

        with ThreadPoolExecutor(lanes()) as pool:
            parts = list(pool.map(batch_from, range(0, len(examples), SCORED_BATCH)))
        probabilities, losses = (np.concatenate(part) for part in zip(*parts, strict=True))
        seconds = time.perf_counter() - began
        hits = probabilities.argmax(axis=1) == examples.labels
        loss = float(losses.mean(dtype=np.float64))
        return Scores(loss, float(hits.mean()), probabilities, seconds)
