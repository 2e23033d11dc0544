"""The model that is trained: shares all weights with the user's, which stays plain Keras.

What a batch's division among workers and threads would change is replaced. Dropout's masks belong
to the examples. BatchNormalization takes its moments over the global batch. Other random layers
draw from a function of the seed and of where training stands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from job.engine.arrays import handle_of
from job.engine.randomness import AUGMENTATION, ExampleDropout, ExampleNoise, StepSeeds
from job.errors import InputError


class GlobalBatch:
    """The examples of a step, on all workers, to layers that need all of them.

    Args:
        world: Number of workers.
    """

    def __init__(self, world: int) -> None:
        self._world = world
        self._real: tf.Tensor | None = None

    @contextlib.contextmanager
    def of(self, real: tf.Tensor) -> Iterator[None]:
        """For the time of the block these of this worker's rows count: bool (rows,)."""
        self._real = real
        try:
            yield
        finally:
            self._real = None

    def moments(self, inputs: tf.Tensor, axis: int, near: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance, float32 (channels,), over all axes but one.

        One sum over the workers serves both. Of squares that are taken around a value near the
        mean, little is lost where they are subtracted.

        Args:
            inputs: float32, examples first.
            axis: That of the channels.
            near: float32 (channels,), the same on all workers.
        """
        assert self._real is not None
        dimensions = len(inputs.shape)
        others = [i for i in range(dimensions) if i != axis % dimensions]
        shape = [1] * dimensions
        shape[axis] = inputs.shape[axis]
        real = tf.reshape(tf.cast(self._real, inputs.dtype), [-1] + [1] * (dimensions - 1))
        centred = (inputs - tf.reshape(near, shape)) * real
        places = tf.size(inputs) // tf.size(self._real) // inputs.shape[axis]
        count = tf.reduce_sum(real) * tf.cast(places, inputs.dtype)
        sums = tf.concat(
            [
                tf.reduce_sum(centred, others),
                tf.reduce_sum(tf.square(centred), others),
                tf.reshape(count, [1]),
            ],
            axis=0,
        )
        if self._world > 1:
            # Its gradient is the same sum, of what comes back to all workers.
            sums = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
        channels = inputs.shape[axis]
        mean, square = sums[:channels] / sums[-1], sums[channels:-1] / sums[-1]
        return mean + near, tf.maximum(square - tf.square(mean), 0.0)


class GlobalBatchNormalization(keras.layers.Layer):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) over the examples of all workers.

    With one worker it is that of Keras. A row that only fills a batch up does not count.
    """

    def __init__(self, layer: keras.layers.BatchNormalization, batch: GlobalBatch) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer, self.batch = layer, batch

    def call(
        self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """In training, normalises by the batch's moments, which move the layer's statistics."""
        layer = self.layer
        if mask is not None:
            raise ValueError(f"{layer.name} is given a mask, which is not built here")
        if not training or not layer.trainable:
            return layer(inputs, training=False)
        inputs = tf.cast(inputs, tf.float32)
        moving = [tf.convert_to_tensor(v) for v in (layer.moving_mean, layer.moving_variance)]
        mean, variance = self.batch.moments(inputs, layer.axis, moving[0])
        for variable, before, now in (
            (layer.moving_mean, moving[0], mean),
            (layer.moving_variance, moving[1], variance),
        ):
            # In place: all workers have the same value, which `assign` would sum over them again.
            tf.raw_ops.AssignVariableOp(
                resource=handle_of(variable),
                value=before * layer.momentum + now * (1.0 - layer.momentum),
            )
        outputs = keras.ops.batch_normalization(
            inputs,
            mean=mean,
            variance=variance,
            axis=layer.axis,
            offset=tf.convert_to_tensor(layer.beta) if layer.center else None,
            scale=tf.convert_to_tensor(layer.gamma) if layer.scale else None,
            epsilon=layer.epsilon,
        )
        return tf.cast(outputs, self.compute_dtype)


def training_twin(
    model: keras.Model,
    noise: ExampleNoise,
    faster: Callable[[keras.layers.Layer], keras.layers.Layer] = lambda layer: layer,
    batch: GlobalBatch | None = None,
) -> keras.Model:
    """A model that shares all weights with `model`, each layer in the form in which it is trained.

    Args:
        model: A Sequential or Functional model; those within it are replaced as well.
        noise: Hands to random layers where training stands.
        faster: Makes of each other layer what computes the same sooner.
        batch: Hands to layers that normalise over a batch all of its examples.
    """
    batch = batch or GlobalBatch(1)
    dropouts, others = iter(range(AUGMENTATION)), iter(range(AUGMENTATION))

    def twin(layer: Any) -> Any:
        if is_plain_dropout(layer):
            return ExampleDropout(
                layer.rate, noise, next(dropouts), name=layer.name, dtype=layer.dtype_policy
            )
        if is_batch_normalization(layer):
            return GlobalBatchNormalization(layer, batch)
        if seed_names(layer):
            return reseeded(layer, noise, next(others))
        return faster(layer)

    return keras.models.clone_model(model, clone_function=twin, recursive=True)


def is_plain_dropout(layer: Any) -> bool:
    """Whether each unit of an example is dropped alone."""
    return type(layer) is keras.layers.Dropout and layer.noise_shape is None


def is_batch_normalization(layer: Any) -> bool:
    """Whether it is Keras' own; what a class derived from that does is not known."""
    return type(layer) is keras.layers.BatchNormalization


def seed_names(layer: Any) -> list[str]:
    """The attributes of a layer that draw random numbers."""
    return [
        name for name, value in vars(layer).items() if isinstance(value, keras.random.SeedGenerator)
    ]


def reseeded(layer: keras.layers.Layer, noise: ExampleNoise, index: int) -> keras.layers.Layer:
    """A layer like this one, without weights, that draws from `StepSeeds`."""
    made = type(layer).from_config(layer.get_config())
    for name in seed_names(made):
        # Not as a part of the layer, which some layers take none of once they are made.
        object.__setattr__(made, name, StepSeeds(noise, index))
    return made


def whole_batch_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers that see more than one example, or draw numbers for all examples of a worker at once.

    A worker computes such a model in one part.
    """
    return [
        layer
        for layer in leaves(model)
        if is_batch_normalization(layer) or (seed_names(layer) and not is_plain_dropout(layer))
    ]


def noise_by_worker(model: keras.Model) -> list[str]:
    """The kinds of layers whose noise another number of workers would change."""
    return sorted(
        {type(layer).__name__ for layer in whole_batch_layers(model) if seed_names(layer)}
    )


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, and of models within it; a user's own class is one layer."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras."):
            yield from leaves(layer)
        else:
            yield layer


def check_layers(model: keras.Model) -> None:
    """Raises InputError for a layer that can't be trained so that only its examples decide."""
    for layer in leaves(model):
        problem = _problem(layer)
        if problem:
            raise InputError(
                "--model",
                model.name,
                f"its layer {layer.name} ({type(layer).__name__}) {problem}",
            )


def _problem(layer: keras.layers.Layer) -> str:
    if getattr(layer, "activity_regularizer", None) is not None:
        return (
            "has an activity_regularizer, for which the rows that fill up a batch would count; "
            "regularise its weights instead"
        )
    if getattr(layer, "stateful", False):
        return "keeps a state from batch to batch (stateful=True), which is no part of a checkpoint"
    if getattr(layer, "renorm", False):
        return "renormalises (renorm=True), which is not built here; leave that out"
    if is_batch_normalization(layer):
        return ""
    weights = {id(variable) for variable in layer.weights}
    draws = any(id(variable) not in weights for variable in layer.non_trainable_variables)
    if draws and weights:
        return (
            "has weights and draws random numbers; leave its dropout out, and put a Dropout layer "
            "behind it"
        )
    constant = isinstance(layer, keras.layers.Normalization)
    if layer.trainable and layer.non_trainable_weights and not constant:
        return (
            "has weights that are not trained; where a call changes them, they depend on how a "
            "batch is divided; of such layers only BatchNormalization can be trained, and what "
            "stays can be a constant"
        )
    return ""
