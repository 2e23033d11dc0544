"""Models as users write them, sound and unsound; tests name them as FILE.py:FUNCTION."""

import keras
import numpy as np
from keras import layers

print("this file says something when it is loaded")


def residual(image_shape, classes):
    """With a skip, a shared layer, normalisation, noise, a nested model, and a linear end."""
    images = keras.Input(image_shape)
    shared = layers.Conv2D(
        8, 3, padding="same", activation="relu", kernel_regularizer=keras.regularizers.L2(1e-4)
    )
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(images))
    x = layers.GaussianNoise(0.1)(x)
    x = x + shared(shared(x))
    branch = keras.Sequential([layers.MaxPooling2D(2), layers.Conv2D(16, 3, activation="swish")])
    x = layers.Flatten()(layers.AveragePooling2D(2)(branch(x)))
    return keras.Model(images, layers.Dense(classes)(layers.Dropout(0.2)(x)), name="residual")


def quiet(image_shape, classes):
    """Nothing in it is random."""
    images = keras.Input(image_shape)
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(images))
    x = x + layers.Conv2D(8, 3, padding="same", kernel_regularizer="l2")(layers.ReLU()(x))
    return keras.Model(images, layers.Dense(classes)(layers.Flatten()(layers.ReLU()(x))))


def plain(image_shape, classes):
    """Sequential without an Input, and a softmax."""
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(classes, "softmax")]
    )


def raises(image_shape, classes):
    return keras.Sequential([layers.Dense(undefined)])  # noqa: F821


def no_arguments():
    return None


def number(image_shape, classes):
    return 3


def nothing(image_shape, classes):
    pass


def too_narrow(image_shape, classes):
    return keras.Sequential([keras.Input(image_shape), layers.Flatten(), layers.Dense(classes - 1)])


def for_other_pictures(image_shape, classes):
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layers.Dense(classes)])


def two_outputs(image_shape, classes):
    images = keras.Input(image_shape)
    x = layers.Flatten()(images)
    return keras.Model(images, [layers.Dense(classes)(x), layers.Dense(classes)(x)])


def two_inputs(image_shape, classes):
    one, other = keras.Input(image_shape), keras.Input(image_shape)
    return keras.Model([one, other], layers.Dense(classes)(layers.Flatten()(one + other)))


def erf_inside(image_shape, classes):
    """Sound, but for ONNX by way of TensorFlow."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Flatten(),
            layers.Dense(8, "gelu"),
            layers.Dense(classes),
        ]
    )


def sigmoid(image_shape, classes):
    return keras.Sequential(
        [keras.Input(image_shape), layers.Flatten(), layers.Dense(classes, "sigmoid")]
    )


def with_lambda(image_shape, classes):
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Lambda(lambda x: 2 * x),
            layers.Flatten(),
            layers.Dense(classes),
        ]
    )


class Mine(layers.Dense):
    pass


def own_layer(image_shape, classes):
    return keras.Sequential([keras.Input(image_shape), layers.Flatten(), Mine(classes)])


def own_activation(image_shape, classes):
    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Flatten(),
            layers.Dense(8, activation=lambda x: x),
            layers.Dense(classes),
        ]
    )


def own_function(image_shape, classes):
    def squared(x):
        return x * x

    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Flatten(),
            layers.Dense(8, activation=squared),
            layers.Dense(classes),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.flat, self.last = layers.Flatten(), layers.Dense(classes)

    def call(self, images):
        return self.last(self.flat(images))


def subclassed(image_shape, classes):
    return Subclassed(classes)


def trained_before(image_shape, classes):
    model = plain(image_shape, classes)
    model.build((None, *image_shape))
    model.set_weights([np.ones_like(array) for array in model.get_weights()])
    return model


def same_names(image_shape, classes):
    def block(name):
        return keras.Sequential([layers.Dense(8, name="dense")], name=name)

    images = keras.Input(image_shape)
    x = block("two")(block("one")(layers.Flatten()(images)))
    return keras.Model(images, layers.Dense(classes, name="last")(x))


def nothing_to_train(image_shape, classes):
    images = keras.Input(image_shape)
    return keras.Model(images, keras.ops.zeros_like(layers.Flatten()(images))[:, :classes])


def ends_the_process(image_shape, classes):
    import os

    os._exit(3)


NOT_A_FUNCTION = 3
