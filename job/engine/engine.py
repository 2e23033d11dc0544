"""The training engine: spans of steps, each one compiled call.

Keras 3's `fit` can't work under MultiWorkerMirroredStrategy (keras#20585), and it returns to Python
at every step. Here the data lie on the device, a span of many steps is one `tf.function`
with the loop inside, and Python is met only between spans. The same code runs alone and on N
workers: each takes its slice of the global batch, and losses are divided by the number of examples
in the *global* batch, so that the summed gradients are those of one worker.

On a CPU a worker divides its slice once more, into lanes: parts that run side by side, each from
the first layer to its gradients on one thread. Threads that share the work of every layer have to
meet at each of them instead, which costs a quarter of the rate at batch 32
(docs/studies/performance.md).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import keras
import numpy as np
import tensorflow as tf

from job.config.config import FIELDS, TrainConfig, is_fixed
from job.engine.arrays import Arrays, assign, to_arrays
from job.engine.augment import Augmentation, augmented, draws
from job.engine.device_split import DeviceSplit, images_of, row_length
from job.engine.fast_layers import form_of
from job.engine.optimizers import FusedRMSprop, WarmupCosine, build_optimizer, learning_rate
from job.engine.randomness import (
    PADDING,
    ExampleNoise,
    batches,
    worker_slice,
)
from job.engine.runtime import lanes
from job.engine.scoring import EVALUATION_BATCH, count_correct, cross_entropy, scale
from job.engine.twin import GlobalBatch, check_layers, training_twin, whole_batch_layers
from job.errors import InputError
from job.models import IMAGE_SHAPE, build_model
from job.models.architecture import Architecture, model_of

# Settings that decide the result and can change from run to run on the same compiled functions:
# they are given with each call, or the loop around the engine has them: test_warm.py.
FREE = (
    *("recipe", "dataset", "epochs", "batch_size", "learning_rate", "seed", "limit_train"),
    *("patience", "best_by"),
)
# All others are compiled in.
COMPILED = tuple(name for name in FIELDS if is_fixed(name) and name not in FREE)

# A tensor, or tensors in lists and tuples.
Tensors = TypeVar("Tensors")


class StepMetrics(NamedTuple):
    """Per step: summed cross-entropy (float64) and correct predictions (int64), each (steps,)."""

    loss_sum: np.ndarray
    correct: np.ndarray


class Engine:
    """A model and its optimizer under a distribution strategy.

    Args:
        config: Model, optimizer, batch size, precision and seed are used.
        total_steps: Steps of the whole run, for the learning-rate schedule.
        classes: Number of labels.
        image_shape: Height, width and channels of the images.
        architecture: Of a model that is none of the built-in ones.
        strategy: `tf.distribute` strategy with one replica per worker; none for a single worker.
        rank: This worker's number.
        world: Number of workers.
        parts: Lanes of this worker; by default as `lanes` has it.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        total_steps: int,
        classes: int = 10,
        image_shape: tuple[int, int, int] = IMAGE_SHAPE,
        architecture: Architecture | None = None,
        strategy: tf.distribute.Strategy | None = None,
        rank: int = 0,
        world: int = 1,
        parts: int | None = None,
    ) -> None:
        self.rank, self.world = rank, world
        self._strategy = strategy or tf.distribute.get_strategy()
        if strategy and strategy.num_replicas_in_sync != world:
            # Each replica would be given the worker's whole part of the batch, and gradients would
            # be multiplied.
            raise ValueError(
                f"the strategy has {strategy.num_replicas_in_sync} replicas for {world} "
                "workers; a worker computes on one device"
            )
        self._config, self._classes, self._image_shape = config, classes, image_shape
        self._augmentation = Augmentation.of(config)
        self._architecture = architecture
        self._noise, self._batch = ExampleNoise(), GlobalBatch(world)
        with self._strategy.scope():
            self.model = self._fresh_model()
            check_layers(self.model)
            self.frozen = freeze(self.model, config.freeze)
            self._rate = learning_rate(config, total_steps)
            self.optimizer = build_optimizer(config, self._rate)
            self.optimizer.build(self.model.trainable_variables)
            self._twin = training_twin(self.model, self._noise, form_of(config), self._batch)
        # Not as `sees_whole_batch`, which counts layers that could draw and do not: what began with
        # lanes for them goes on so.
        is_whole = bool(whole_batch_layers(self.model) or (architecture and architecture.own_parts))
        self._lanes = parts or (1 if is_whole else lanes(config.lanes))
        self._regularised = [
            variable
            for variable in self.model.trainable_variables
            if variable.regularizer is not None
        ]
        self._fresh_optimizer = self.optimizer_arrays()
        # Within a function of its own no layer can sum over the workers.
        self._gradients = (
            self._loss_and_gradients
            if is_whole and world > 1
            else compiled(self._loss_and_gradients, config.xla and world > 1)
        )
        # Fixed signatures: a span of any length, on any split, with any batch size, learning rate
        # and seed runs the same compiled function.
        split = (
            tf.TensorSpec([None, row_length(image_shape)], tf.int64, "pixels"),
            tf.TensorSpec([None], tf.int64, "labels"),
        )
        self._train = tf.function(
            self._train_loop,
            input_signature=[
                *split,
                tf.TensorSpec([None, None], tf.int64, "rows"),
                tf.TensorSpec([None], tf.float32, "counts"),
                tf.TensorSpec([], tf.int64, "first_step"),
                tf.TensorSpec([], tf.int64, "epoch"),
                tf.TensorSpec([], tf.int64, "seed"),
            ],
        )
        self._sum = tf.function(self._sum_over_workers)
        self._evaluate = tf.function(
            self._evaluate_loop,
            input_signature=[
                *split,
                tf.TensorSpec([None, -(-EVALUATION_BATCH // world)], tf.int64, "rows"),
            ],
        )

    def _fresh_model(self) -> keras.Model:
        if self._architecture:
            return model_of(self._architecture, self._config.seed)
        config = self._config
        return build_model(
            config.model,
            classes=self._classes,
            image_shape=self._image_shape,
            seed=config.seed,
            precision=config.precision,
        )

    def fits(
        self,
        config: TrainConfig,
        classes: int,
        image_shape: tuple[int, int, int] = IMAGE_SHAPE,
    ) -> bool:
        """Whether `restart` can make this the engine of another run."""
        mine, other = self._config, config
        same_data = (self._classes, self._image_shape) == (classes, image_shape)
        alike = same_data and mine.lanes == other.lanes
        return alike and all(getattr(mine, name) == getattr(other, name) for name in COMPILED)

    def restart(self, config: TrainConfig, total_steps: int) -> None:
        """Begins another run on the functions that are compiled already; equal to a new engine.

        Args:
            config: Its settings, which `fits`.
            total_steps: Steps of the whole run.
        """
        self._config = config
        self.restore(to_arrays(self._fresh_model().weights), self._fresh_optimizer)
        if isinstance(self._rate, WarmupCosine):
            self._rate.set(config.learning_rate, total_steps)
        else:
            self.optimizer.learning_rate = config.learning_rate

    def train_span(
        self, data: DeviceSplit, rows: np.ndarray, first_step: int, epoch: int = 0
    ) -> StepMetrics:
        """Trains one step for each row.

        Args:
            data: Training examples.
            rows: int32 (steps, batch_size), indices into `data` or `PADDING`.
            first_step: Global step number of the first row.
            epoch: From 0, for augmentation.

        Returns:
            Metrics of each step, over the global batch.
        """
        counts = (rows != PADDING).sum(axis=1).astype(np.float32)
        local = worker_slice(rows, self.rank, self.world)
        return _to_metrics(
            self._train(
                *data,
                tf.constant(local, tf.int64),
                tf.constant(counts),
                tf.constant(first_step, tf.int64),
                tf.constant(epoch, tf.int64),
                tf.constant(self._config.seed, tf.int64),
            )
        )

    def evaluate(self, data: DeviceSplit) -> tuple[float, float]:
        """Mean cross-entropy and accuracy; each example counts once for any number of workers."""
        count = len(data)
        rows = batches(np.arange(count, dtype=np.int32), EVALUATION_BATCH)
        local = worker_slice(rows, self.rank, self.world)
        metrics = _to_metrics(self._evaluate(*data, tf.constant(local, tf.int64)))
        return metrics.loss_sum.sum() / count, metrics.correct.sum() / count

    def sum_over_workers(self, values: Sequence[int]) -> list[int]:
        """Adds up small integers over the workers, so that all of them take the same decision.

        Every worker has to call it equally often.
        """
        if self.world == 1:
            return list(values)
        total = self._sum(tf.constant(values, tf.int64))
        return [int(value) for value in total.numpy()]

    def weights(self) -> Arrays:
        """Copies of the model's arrays by variable path, in `model.weights` order."""
        return to_arrays(self.model.weights)

    def optimizer_arrays(self) -> Arrays:
        """Copies of the optimizer's variables by path."""
        return to_arrays(self.optimizer.variables)

    def restore(self, weights: Arrays, optimizer: Arrays) -> None:
        """Sets all variables. Raises ValueError where names, shapes or dtypes don't fit."""
        assign(self.model.weights, weights)
        assign(self.optimizer.variables, optimizer)
        if isinstance(self.optimizer, FusedRMSprop):
            self.optimizer.clear()

    def _over_lanes(
        self, work: Callable[[tf.Tensor, int | tf.Tensor], Tensors], rows: tf.Tensor
    ) -> Tensors:
        """Sums what `work(rows, offset)` returns for each lane's part of the rows.

        A part begins at `offset`. The parts depend on nothing of each other, so TensorFlow runs
        them in parallel.
        """
        if self._lanes == 1:
            return work(rows, 0)
        share = -(-tf.size(rows) // self._lanes)
        padding = share * self._lanes - tf.size(rows)
        padded = tf.pad(rows, [[0, padding]], constant_values=PADDING)
        done = [
            work(padded[offset : offset + share], offset)
            for offset in (lane * share for lane in range(self._lanes))
        ]
        return tf.nest.map_structure(lambda *parts: tf.add_n(parts), *done)

    def _loss_and_gradients(
        self,
        pixels: tf.Tensor,
        labels: tf.Tensor,
        drawn: tf.Tensor | None,
        rows: tf.Tensor,
        count: tf.Tensor,
        step: tf.Tensor,
        seed: tf.Tensor,
        first_position: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        examples = tf.maximum(rows, 0)
        real = rows != PADDING
        labels = tf.gather(labels, examples)
        with (
            tf.GradientTape() as tape,
            self._noise.at(seed, step, first_position),
            self._batch.of(real),
        ):
            images = self._images(pixels, examples)
            if drawn is not None:
                images = augmented(images, tf.gather(drawn, examples), self._augmentation)
            probabilities = self._twin(images, training=True)
            losses = cross_entropy(labels, probabilities, self._config.label_smoothing)
            loss_sum = tf.reduce_sum(losses * tf.cast(real, tf.float32))
            loss = loss_sum / count
        gradients = tape.gradient(loss, self.model.trainable_variables)
        return loss_sum, count_correct(labels, probabilities, real), gradients

    def _with_penalties(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Adds those of regularised weights: over all workers they count once for a batch.

        What is reported as a loss stays the cross-entropy.
        """
        with tf.GradientTape() as tape:
            penalties = [variable.regularizer(variable) for variable in self._regularised]
            share = tf.add_n([tf.cast(penalty, tf.float32) for penalty in penalties]) / self.world
        added = tape.gradient(share, self._regularised)
        more = {v.path: gradient for v, gradient in zip(self._regularised, added, strict=True)}
        return [
            gradient + more[v.path] if v.path in more else gradient
            for v, gradient in zip(self.model.trainable_variables, gradients, strict=True)
        ]

    def _images(self, pixels: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        """Float32 (batch, height, width, channels), pixels in [0, 1]."""
        return scale(images_of(pixels, examples, self._image_shape))

    def _train_loop(
        self,
        pixels: tf.Tensor,
        labels: tf.Tensor,
        rows: tf.Tensor,
        counts: tf.Tensor,
        first_step: tf.Tensor,
        epoch: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        # For all examples at once: that takes less than a hundredth of a span's time.
        drawn = None
        if any(self._augmentation):
            count = tf.shape(labels)[0]
            drawn = draws(seed, epoch, count, warps=self._augmentation.warps)

        def replica_step(row: tf.Tensor, count: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            first_position = self.rank * tf.size(row)
            loss_sum, correct, gradients = self._over_lanes(
                lambda part, offset: self._gradients(
                    pixels, labels, drawn, part, count, step, seed, first_position + offset
                ),
                row,
            )
            if self._regularised:
                gradients = self._with_penalties(gradients)
            # With several workers this sums the gradients over them.
            with self._rate_at(step):
                self.optimizer.apply_gradients(
                    zip(gradients, self.model.trainable_variables, strict=True)
                )
            return tf.stack([loss_sum, correct])

        # XLA takes a whole step, its update of the variables included, but no collective.
        whole = self._config.xla and self.world == 1
        return self._loop(
            tf.shape(rows)[0],
            lambda i: (rows[i], counts[i], first_step + tf.cast(i, tf.int64)),
            compiled(replica_step, True) if whole else replica_step,
        )

    def _rate_at(self, step: tf.Tensor) -> AbstractContextManager[None]:
        """Lets a schedule, where there is one, give its rate of this step."""
        return self._rate.at(step) if isinstance(self._rate, WarmupCosine) else nullcontext()

    def _evaluate_loop(self, pixels: tf.Tensor, labels: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        def one_lane(row: tf.Tensor, offset: int | tf.Tensor) -> tf.Tensor:
            examples = tf.maximum(row, 0)
            real = row != PADDING
            labels_here = tf.gather(labels, examples)
            probabilities = self.model(self._images(pixels, examples), training=False)
            losses = cross_entropy(labels_here, probabilities) * tf.cast(real, tf.float32)
            return tf.stack(
                [tf.reduce_sum(losses), count_correct(labels_here, probabilities, real)]
            )

        def replica_step(row: tf.Tensor) -> tf.Tensor:
            return self._over_lanes(one_lane, row)

        return self._loop(tf.shape(rows)[0], lambda i: (rows[i],), replica_step)

    def _loop(
        self,
        steps: tf.Tensor,
        arguments: Callable[[tf.Tensor], tuple[tf.Tensor, ...]],
        replica_step: Callable[..., tf.Tensor],
    ) -> tf.Tensor:
        """Runs `replica_step` for each step and sums what it returns over the workers.

        One collective serves the whole span. The strategy wants its loop outside the replica
        context.
        """
        results = tf.TensorArray(tf.float32, steps, element_shape=[2])
        for i in tf.range(steps):
            result = self._strategy.run(replica_step, args=arguments(i))
            results = results.write(i, self._strategy.experimental_local_results(result)[0])
        return self._sum_over_workers(results.stack())

    def _sum_over_workers(self, values: tf.Tensor) -> tf.Tensor:
        if self.world == 1:
            return values

        local = self._strategy.run(tf.identity, args=(values,))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, local, axis=None)


def freeze(model: keras.Model, pattern: str | None) -> list[str]:
    """Takes arrays whose path matches out of training; returns their paths.

    Raises:
        InputError: None matches, or nothing is left to train.
    """
    if pattern is None:
        return []
    trained = model.trainable_variables
    chosen = [one for one in trained if fnmatch.fnmatchcase(one.path, pattern)]
    if len(chosen) in (0, len(trained)):
        which = "none" if not chosen else "all"
        paths = ", ".join(variable.path for variable in trained)
        raise InputError(
            "--freeze", pattern, f"matches {which} of the arrays that are trained: {paths}"
        )
    for variable in chosen:
        variable.trainable = False
    return [variable.path for variable in chosen]


def compiled(function: Callable, xla: bool | None) -> Callable:
    """A TensorFlow function, compiled with XLA if wanted."""
    return tf.function(function, jit_compile=True if xla else None)


def _to_metrics(values: tf.Tensor) -> StepMetrics:
    # Summed on the host in float64, so that totals don't depend on where spans were cut.
    values = values.numpy().astype(np.float64)
    return StepMetrics(values[:, 0], values[:, 1].astype(np.int64))
