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
    """Nothing in it is random; it has parts of this file."""
    images = keras.Input(image_shape)
    x = Scale(0.5)(layers.Conv2D(4, 1, activation=squared)(images))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(8, 3, padding="same")(x))
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


class Scale(layers.Layer):
    """A factor for each channel that begins as it is told."""

    def __init__(self, first=1.0, **kwargs):
        super().__init__(**kwargs)
        self.first = first

    def build(self, shape):
        first = keras.initializers.Constant(self.first)
        self.factor = self.add_weight(shape=(shape[-1],), initializer=first, name="factor")

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "first": self.first}


@keras.saving.register_keras_serializable("nets")
class Shaken(layers.Layer):
    """Noise of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs, training=False):
        if not training:
            return inputs
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def squared(x):
    return x * x


def own_parts(image_shape, classes):
    """A layer with weights, one that draws, and an activation, all of this file."""
    images = keras.Input(image_shape)
    x = Scale(0.5)(layers.Conv2D(8, 3, padding="same", activation=squared)(images))
    x = layers.Flatten()(layers.MaxPooling2D(4)(Shaken()(x)))
    return keras.Model(images, layers.Dense(classes)(x), name="own_parts")


class Forgetful(layers.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return super().get_config()


class Moody(layers.Layer):
    def call(self, inputs, training=False):
        return inputs + keras.random.normal((1,)) if training else inputs


class Gated(layers.Layer):
    """Begins as nothing, as a residual branch may."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(), initializer="zeros", name="gate")

    def call(self, inputs):
        return inputs + self.gate * keras.ops.mean(inputs, axis=0, keepdims=True)


class Biased(layers.Layer):
    def __init__(self, bias=True, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(8, use_bias=bias)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        return super().get_config()


class Net(keras.Model):
    def call(self, inputs, training=False):
        return super().call(0 * inputs)


@keras.saving.register_keras_serializable("nets")
def cubed(x):
    return x * x * x


class Sparing(layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(inputs))
        return inputs


class Block(keras.Model):
    """A model as a layer, with what must not be trained within."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization()

    def call(self, inputs, training=False):
        return self.norm(inputs, training=training)


class Renamed(layers.BatchNormalization):
    pass


def _with(layer, image_shape, classes):
    return keras.Sequential(
        [keras.Input(image_shape), layers.Flatten(), layer, layers.Dense(classes)]
    )


def forgetful(image_shape, classes):
    return _with(Forgetful(3.0), image_shape, classes)


def moody(image_shape, classes):
    return _with(Moody(), image_shape, classes)


def gated(image_shape, classes):
    return _with(Gated(), image_shape, classes)


def biased(image_shape, classes):
    return _with(Biased(bias=False), image_shape, classes)


def own_class(image_shape, classes):
    images = keras.Input(image_shape)
    return Net(images, layers.Dense(classes)(layers.Flatten()(images)))


def registered(image_shape, classes):
    images = keras.Input(image_shape)
    x = layers.Dense(8, activation=cubed)(images[:, 0, ..., 0])
    return keras.Model(images, layers.Dense(classes)(x))


def sparing(image_shape, classes):
    return _with(Sparing(), image_shape, classes)


def local_class(image_shape, classes):
    class Local(layers.Layer):
        def call(self, inputs):
            return inputs

    return _with(Local(), image_shape, classes)


def block(image_shape, classes):
    return _with(Block(), image_shape, classes)


def renamed(image_shape, classes):
    return _with(Renamed(), image_shape, classes)


def mixing(image_shape, classes):
    images = keras.Input(image_shape)
    x = layers.Flatten()(images)
    return keras.Model(images, layers.Dense(classes)(x - keras.ops.mean(x, axis=0, keepdims=True)))


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
    def cubed(x):
        return x * x * x

    return keras.Sequential(
        [
            keras.Input(image_shape),
            layers.Flatten(),
            layers.Dense(8, activation=cubed),
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
