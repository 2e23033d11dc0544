"""The models, one function each.

Add a function, enter it in `MODELS`, and it has a flag, a table in `lenet models` and a place in
sweeps.

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
    """LeNet5 as in S. Jansen's notebook (LeCun et al., 1998): 303,626 parameters with 10 classes.

    The paper is "Gradient-based learning applied to document recognition".
    """
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
    """Two hidden layers of 512 with dropout, the notebook's; 669,706 parameters with 10 classes."""
    return [
        layers.Flatten(name="FLAT"),
        layers.Dense(512, activation="relu", name="FC1"),
        layers.Dropout(0.2, name="DROP1"),
        layers.Dense(512, activation="relu", name="FC2"),
        layers.Dropout(0.2, name="DROP2"),
        output(layers, classes, name="FC3"),
    ]


def alexnet(layers: Any, classes: int) -> list[Any]:
    """AlexNet (Krizhevsky et al., 2012) for small images, with a quarter of its widths.

    1,555,898 parameters with 28×28 gray images and 10 classes; 1,884,778 with 32×32 in colour. The
    paper is "ImageNet classification with deep convolutional neural networks"; the widths are 24,
    64, 96, 96 and 64 maps, and 1,024 units.

    As in the paper: five convolutions and three dense layers, ReLU, overlapping max pooling after
    the first, second and fifth convolution, dropout of one half after the first two dense layers.
    Otherwise than there: the first convolution is 5×5 with stride 1 instead of 11×11 with stride 4,
    as images have an eighth of its 224 pixels a side; feature maps are not halved for two GPUs; no
    local response normalisation, which Simonyan and Zisserman ("Very deep convolutional networks",
    2015) found to be of no use; weights begin as He et al. ("Delving deep into rectifiers", 2015)
    derive them for ReLU.

    S. Jansen's small AlexNet keeps the paper's widths and adds batch normalisation (21.5 million
    parameters); here a batch's statistics would depend on the number of workers.
    """
    he = {"activation": "relu", "kernel_initializer": "he_normal"}
    return [
        layers.Conv2D(24, 5, padding="same", name="CONV1", **he),
        layers.MaxPooling2D(3, strides=2, name="POOL1"),
        layers.Conv2D(64, 5, padding="same", name="CONV2", **he),
        layers.MaxPooling2D(3, strides=2, name="POOL2"),
        layers.Conv2D(96, 3, padding="same", name="CONV3", **he),
        layers.Conv2D(96, 3, padding="same", name="CONV4", **he),
        layers.Conv2D(64, 3, padding="same", name="CONV5", **he),
        layers.MaxPooling2D(3, strides=2, name="POOL5"),
        layers.Flatten(name="FLAT"),
        layers.Dense(1024, name="FC6", **he),
        layers.Dropout(0.5, name="DROP6"),
        layers.Dense(1024, name="FC7", **he),
        layers.Dropout(0.5, name="DROP7"),
        output(layers, classes, name="FC8"),
    ]


MODELS = {"lenet5": lenet5, "ffnn": ffnn, "alexnet": alexnet}


def output(layers: Any, classes: int, name: str) -> Any:
    """The last layer: probabilities (n, classes), always float32."""
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
