"""Keras layers computed otherwise while they are trained, with the same function and gradient.

The form is one that oneDNN is better at on processors, and XLA on GPUs. Models stay plain Keras:
`training_twin` swaps these in.

What it brings is in docs/studies/performance.md (`python -m benchmarks.speed.ablation`) and
docs/studies/gpu.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from job.config.config import TrainConfig
from job.engine.runtime import has_avx512, has_gpu

# Above this many output places of a convolution its patches cost more than they save.
MOST_PLACES = 36
FEWEST_FILTERS = 64
# oneDNN computes channels by so many.
BLOCK = 8
# LeNet5's. With more, cuDNN's kernels fill a GPU as they are, and patches take much memory.
MOST_CHANNELS = 16
# Numbers in the patches of an image: LeNet5's second convolution has 54,150 for 28×28 pixels. Ten
# times as many still fit a batch of 512 into 1.1 GB.
MOST_PATCHES = 550_000

Form = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# Of an upstream gradient, those of the arguments.
Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def form_of(config: TrainConfig) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    """The form in which the device that trains is best at a layer."""
    if has_gpu():
        return fast_in_xla if config.xla else lambda layer: layer
    return functools.partial(fast, wide_vectors=has_avx512())


def fast(layer: keras.layers.Layer, *, wide_vectors: bool = False) -> keras.layers.Layer:
    """A layer that computes the same as this one, with its weights; itself where it's fast.

    With `wide_vectors` (AVX-512) convolutions are: oneDNN has better kernels for such processors.
    """
    if _is_sliding_mean(layer):
        return SlidingMean(layer)
    if type(layer) is keras.layers.Conv2D and _is_plain(layer) and not wide_vectors:
        (_, height, width, filters), channels = layer.output.shape, layer.input.shape[-1]
        if height * width <= MOST_PLACES and filters >= FEWEST_FILTERS:
            return ConvolutionInOtherForm(layer, _as_product)
        if 0 < -channels % BLOCK <= channels // 2:
            return ConvolutionInOtherForm(layer, _with_whole_blocks)
    return layer


def fast_in_xla(layer: keras.layers.Layer) -> keras.layers.Layer:
    """As `fast`, for a step that XLA compiles for a GPU.

    Convolutions of few channels are products there: cuDNN turns their images around before and
    after each of its kernels, and XLA can't fuse what follows into them (LeNet5 at batch 32 on an
    H200: 350 µs a step against 220, 64 steps in a call).
    """
    if _is_sliding_mean(layer):
        return SlidingMean(layer)
    if type(layer) is keras.layers.Conv2D and _is_plain(layer) and _has_small_patches(layer):
        return ConvolutionInOtherForm(layer, _as_plain_product)
    return layer


def _has_small_patches(layer: keras.layers.Conv2D) -> bool:
    channels = layer.input.shape[-1]
    patches = math.prod((*layer.output.shape[1:3], *layer.kernel_size, channels))
    return channels <= MOST_CHANNELS and patches <= MOST_PATCHES


def _is_sliding_mean(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.AveragePooling2D and (
        layer.strides == (1, 1) and (layer.padding, layer.data_format) == ("valid", "channels_last")
    )


def _is_plain(layer: keras.layers.Conv2D) -> bool:
    shape = (layer.strides, layer.dilation_rate, layer.groups, layer.padding)
    return (
        shape == ((1, 1), (1, 1), 1, "valid")
        and layer.data_format == "channels_last"
        and _has_one_shape(layer)
    )


def _has_one_shape(layer: keras.layers.Layer) -> bool:
    """Whether it is called once in its model, with images of a size that is known."""
    try:
        shape = layer.output.shape
    except AttributeError:
        # What Keras raises for a layer with several inputs or outputs.
        return False
    return None not in shape[1:]


class SlidingMean(keras.layers.Layer):
    """Average pooling of stride 1.

    Its gradient is the same pooling, of what comes back with a border of zeros; TensorFlow's own
    kernel for it takes twice as long.
    """

    def __init__(self, pool: keras.layers.AveragePooling2D) -> None:
        super().__init__(name=pool.name, dtype=pool.dtype_policy)
        self.size = pool.pool_size

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The means (n, height, width, channels) of all windows that lie within the images."""
        return _sliding_mean(inputs, *self.size)


class ConvolutionInOtherForm(keras.layers.Layer):
    """A convolution whose outputs and gradients `form` computes, from images and kernel."""

    def __init__(self, convolution: keras.layers.Conv2D, form: Form) -> None:
        super().__init__(name=convolution.name, dtype=convolution.dtype_policy)
        self.convolution, self.form = convolution, form

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """What `form` gives, with the convolution's bias and activation."""
        layer = self.convolution
        outputs = self.form(inputs, tf.convert_to_tensor(layer.kernel))
        if layer.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
        return layer.activation(outputs)


def _sliding_mean(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    def pooled(values: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(values, (height, width), 1, "VALID")

    @tf.custom_gradient
    def forward(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        border = [[0, 0], [height - 1] * 2, [width - 1] * 2, [0, 0]]
        return pooled(values), lambda upstream: pooled(tf.pad(upstream, border))

    return forward(images)


@tf.custom_gradient
def _with_whole_blocks(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Computes the gradient of the images with as many more channels as fill a block.

    The kernel has zeros for them: 50 µs an image instead of 89 for LeNet5's second convolution.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels = kernel.shape[2]
        more = -channels % BLOCK
        by_image = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=[tf.shape(images)[0], *images.shape[1:3], channels + more],
            filter=tf.pad(kernel, [[0, 0], [0, 0], [0, more], [0, 0]]),
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        by_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=images,
            filter_sizes=kernel.shape,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        return by_image[..., :channels], by_kernel

    return tf.nn.conv2d(images, kernel, 1, "VALID"), gradient


@tf.custom_gradient
def _as_product(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """One product of patches and kernel.

    The patches serve the kernel's gradient as well; that of the images is left to TensorFlow.
    """
    height, width, _, filters = kernel.shape
    rows, columns = images.shape[1] - height + 1, images.shape[2] - width + 1
    matrix = _patches(images, height, width)
    outputs = matrix @ tf.reshape(kernel, [-1, filters])

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        by_image = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images),
            filter=kernel,
            out_backprop=upstream,
            strides=[1, 1, 1, 1],
            padding="VALID",
        )
        by_kernel = tf.matmul(matrix, tf.reshape(upstream, [-1, filters]), transpose_a=True)
        return by_image, tf.reshape(by_kernel, kernel.shape)

    return tf.reshape(outputs, [-1, rows, columns, filters]), gradient


def _as_plain_product(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """One product of patches and kernel, whose gradients are left to TensorFlow.

    A product for each image in the kernel's gradient, instead of one long sum, was slower: 410 µs
    a step.
    """
    height, width, _, filters = kernel.shape
    rows, columns = images.shape[1] - height + 1, images.shape[2] - width + 1
    outputs = _patches(images, height, width) @ tf.reshape(kernel, [-1, filters])
    return tf.reshape(outputs, [-1, rows, columns, filters])


def _patches(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """(batch × places, height × width × channels): what each place of the kernel sees."""
    _, rows, columns, channels = images.shape
    rows, columns = rows - height + 1, columns - width + 1
    across = tf.concat([images[:, :, j : j + columns] for j in range(width)], -1)
    both = tf.concat([across[:, i : i + rows] for i in range(height)], -1)
    return tf.reshape(both, [-1, height * width * channels])
