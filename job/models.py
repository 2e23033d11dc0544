"""The models, one function each: add a function, enter it in `MODELS`, and it has a flag, a table
in `lenet models` and a place in sweeps.

A function gets `keras.layers` and the number of classes and returns the layers in order. It takes
the module as an argument so that the names of the models are known without importing TensorFlow,
which takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Height, width and channels of MNIST's images.
IMAGE_SHAPE = (28, 28, 1)


def lenet5(layers: Any, classes: int) -> list[Any]:
    """LeNet5 as in S. Jansen's notebook, after LeCun et al., "Gradient-based learning applied to
    document recognition" (1998). 303,626 parameters with 10 classes."""
    return [
        layers.Conv2D(6, 5, activation="relu", name="CONV1"),
        layers.AveragePooling2D(2, strides=1, name="POOL1"),
        layers.Conv2D(16, 5, activation="tanh", name="CONV2"),
        layers.AveragePooling2D(2, strides=2, name="POOL2"),
        layers.Conv2D(120, 5, activation="tanh", name="CONV3"),
        layers.Flatten(name="FLAT"),
        layers.Dense(84, activation="tanh", name="FC6"),
        output(layers, classes, name="FC7"),
    ]


def ffnn(layers: Any, classes: int) -> list[Any]:
    """Two hidden layers of 512 with dropout, the notebook's feed-forward net. 669,706 parameters
    with 10 classes."""
    return [
        layers.Flatten(name="FLAT"),
        layers.Dense(512, activation="relu", name="FC1"),
        layers.Dropout(0.2, name="DROP1"),
        layers.Dense(512, activation="relu", name="FC2"),
        layers.Dropout(0.2, name="DROP2"),
        output(layers, classes, name="FC3"),
    ]


MODELS = {"lenet5": lenet5, "ffnn": ffnn}


def output(layers: Any, classes: int, name: str) -> Any:
    # The probabilities stay float32 under mixed precision: bfloat16 has 8 bits of mantissa, too
    # few for a cross-entropy.
    return layers.Dense(classes, activation="softmax", dtype="float32", name=name)


def build_model(
    name: str,
    *,
    classes: int = 10,
    image_shape: tuple[int, int, int] = IMAGE_SHAPE,
    seed: int | None = None,
    precision: str = "float32",
) -> keras.Model:
    """Builds a model with fresh weights.

    Args:
        name: A key of `MODELS`.
        classes: Number of labels, the width of the softmax.
        image_shape: Height, width and channels, as `Dataset.image_shape` gives them.
        seed: Makes the weights a pure function of it. Sets Keras' global seed, as
            `keras.utils.set_random_seed` does.
        precision: Keras dtype policy, `float32` or `mixed_bfloat16`.

    Returns:
        A plain Keras 3 model from images (batch, *image_shape), float in [0, 1], to class
        probabilities (batch, classes).

    Raises:
        KeyError: No model of that name.
    """
    import keras

    layers_of = MODELS[name]
    if seed is not None:
        keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return keras.Sequential(
            [keras.Input(image_shape, name="image"), *layers_of(keras.layers, classes)], name=name
        )
    finally:
        keras.config.set_dtype_policy(before)
