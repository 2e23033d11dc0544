"""The layers that a CPU trains in another form, against Keras' own."""

from __future__ import annotations

import numpy as np
import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from job.engine.fast_layers import (  # noqa: E402
    ConvolutionInOtherForm,
    SlidingMean,
    fast,
    fast_in_xla,
)
from job.models import build_model  # noqa: E402

LAYERS = {
    "pooling": (keras.layers.AveragePooling2D(2, strides=1), (7, 6, 3)),
    "wide pooling": (keras.layers.AveragePooling2D((3, 2), strides=1), (7, 6, 3)),
    "convolution": (keras.layers.Conv2D(64, 5, activation="tanh"), (9, 8, 6)),
    "convolution without bias": (keras.layers.Conv2D(64, (2, 3), use_bias=False), (5, 4, 2)),
    "large convolution": (keras.layers.Conv2D(16, 5, activation="tanh"), (12, 11, 6)),
}


def outputs_and_gradients(layer, images, variables):
    """The outputs, and the gradients of a sum in which each output has a weight of its own."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
        weights = np.random.default_rng(1).standard_normal(outputs.shape)
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights.astype(np.float32))
    return [outputs, *tape.gradient(total, [images, *variables])]


@pytest.mark.parametrize("form", [fast, fast_in_xla])
@pytest.mark.parametrize("name", LAYERS)
def test_a_fast_layer_computes_what_keras_does(name, form):
    layer, shape = LAYERS[name]
    keras.Sequential([keras.Input(shape), layer])
    if layer.weights:
        layer.set_weights([np.random.default_rng(2).normal(size=w.shape) for w in layer.weights])
    images = tf.constant(np.random.default_rng(0).standard_normal((4, *shape)), tf.float32)
    variables = [weight.value for weight in layer.weights]
    replaced = form(layer)
    assert type(replaced) in (ConvolutionInOtherForm, SlidingMean)
    found = outputs_and_gradients(replaced, images, variables)
    wanted = outputs_and_gradients(layer, images, variables)
    for ours, theirs in zip(found, wanted, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.AveragePooling2D(2),
        keras.layers.AveragePooling2D(2, strides=1, padding="same"),
        keras.layers.MaxPooling2D(2, strides=1),
        keras.layers.Conv2D(64, 5, padding="same"),
        keras.layers.Conv2D(64, 5, strides=2),
        keras.layers.Conv2D(64, 3, dilation_rate=2),
        keras.layers.Conv2D(64, 3, groups=2),
        keras.layers.Conv2D(16, 5),
        keras.layers.Conv2D(64, 2),
        keras.layers.Dense(64),
    ],
)
def test_other_layers_stay_as_they_are(layer):
    keras.Sequential([keras.Input((8, 8, 4)), layer])
    assert fast(layer) is layer


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.AveragePooling2D(2),
        keras.layers.MaxPooling2D(2, strides=1),
        keras.layers.Conv2D(16, 5, padding="same"),
        keras.layers.Conv2D(16, 5, strides=2),
        keras.layers.Dense(16),
    ],
)
def test_xla_leaves_other_layers_as_they_are(layer):
    keras.Sequential([keras.Input((8, 8, 4)), layer])
    assert fast_in_xla(layer) is layer


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((8, 8, 16), ConvolutionInOtherForm),
        ((8, 8, 17), keras.layers.Conv2D),
        # 144 numbers for each of 3,844 places, and for each of 3,721.
        ((64, 64, 16), keras.layers.Conv2D),
        ((63, 63, 16), ConvolutionInOtherForm),
    ],
)
def test_xla_computes_few_channels_of_small_images_as_products(shape, form):
    layer = keras.layers.Conv2D(4, 3)
    keras.Sequential([keras.Input(shape), layer])
    assert type(fast_in_xla(layer)) is form


@pytest.mark.parametrize(
    ("wide_vectors", "wanted"), [(False, {"POOL1", "CONV2", "CONV3"}), (True, {"POOL1"})]
)
def test_the_model_itself_stays_plain_keras(wide_vectors, wanted):
    model = build_model("lenet5")
    faster = [fast(layer, wide_vectors=wide_vectors) for layer in model.layers]
    pairs = zip(model.layers, faster, strict=True)
    assert {layer.name for layer, other in pairs if other is not layer} == wanted
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
