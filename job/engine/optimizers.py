"""Optimizers and learning-rate schedules from a config, all Keras' own.

Only the update of a variable is done otherwise: Keras writes it as a chain of operations, each of
which passes through the whole array; TensorFlow has the same formulas as one operation each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from job.config.config import TrainConfig
from job.config.schedule import warmup_cosine, warmup_steps
from job.engine.arrays import handle_of

MOMENTUM = 0.9


class WarmupCosine:
    """`warmup_cosine`, whose warm-up is the first tenth of a run.

    Its numbers are variables, so that compiled steps serve another run with other ones. Keras asks
    for the rate once for each variable, and its own schedule chooses with a condition, for which a
    GPU waits each time; so it is computed `at` the beginning of a step, without one.

    Args:
        peak: Learning rate at the end of the warm-up.
        total_steps: Steps of the whole run.
    """

    def __init__(self, peak: float, total_steps: int) -> None:
        # Float32, as Keras casts plain numbers; steps are exact in it up to 16 million.
        numbers = [tf.Variable(0.0, name=name) for name in ("decay_steps", "warmup_steps", "peak")]
        self._numbers = numbers
        self._now: tf.Tensor | None = None
        self.set(peak, total_steps)

    def __call__(self) -> tf.Tensor:
        """The rate of the step that is being traced, which Keras asks for."""
        if self._now is None:
            raise RuntimeError("a learning rate was asked for outside WarmupCosine.at")
        return self._now

    @contextlib.contextmanager
    def at(self, step: tf.Tensor) -> Iterator[None]:
        """Lets `step` (from 0) be the one whose rate is asked for in the block."""
        self._now = self.rate(step)
        try:
            yield
        finally:
            self._now = None

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """The learning rate, float32, of a step from 0."""
        decay, warmup, peak = (tf.convert_to_tensor(n) for n in self._numbers)
        return warmup_cosine(tf.cast(step, tf.float32), peak, warmup, decay, tf)

    def set(self, peak: float, total_steps: int) -> None:
        """Makes it that of another run."""
        warmup = warmup_steps(total_steps)
        for variable, value in zip(
            self._numbers, (total_steps - warmup, warmup, peak), strict=True
        ):
            variable.assign(value)


def learning_rate(config: TrainConfig, total_steps: int) -> float | WarmupCosine:
    """The learning rate of a config: a number, or a schedule over `total_steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    return WarmupCosine(config.learning_rate, total_steps)


class FusedSGD(keras.optimizers.SGD):
    """Keras' SGD; the update of a variable is one operation."""

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Applies a gradient in place, with momentum if the optimizer has any."""
        rate = keras.ops.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=handle_of(variable), alpha=rate, delta=gradient
            )
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=handle_of(variable),
            accum=handle_of(self.momentums[self._get_variable_index(variable)]),
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class FusedRMSprop(keras.optimizers.RMSprop):
    """Keras' RMSprop without momentum; the update of a variable is one operation."""

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """As Keras', and makes the scratch pads that the operation wants."""
        super().build(var_list)
        # The operation keeps a momentum, here times 0: a scratch pad, no state of the optimizer,
        # as long as it is finite.
        self._scratch = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in var_list]

    def clear(self) -> None:
        """Forgets what a run that diverged left in the scratch pad: 0 times NaN is NaN."""
        for variable in self._scratch:
            variable.assign(tf.zeros_like(variable))

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Applies a gradient in place, with a momentum of 0."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=handle_of(variable),
            ms=handle_of(self._velocities[index]),
            mom=handle_of(self._scratch[index]),
            lr=keras.ops.cast(learning_rate, variable.dtype),
            rho=self.rho,
            momentum=0.0,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam; one operation updates a variable, the betas' powers are computed once a step."""

    def apply(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """As Keras', after the powers of the betas for this step."""
        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = self.beta_1**step, self.beta_2**step
        return super().apply(grads, trainable_variables)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Applies a gradient in place, with the powers that `apply` computed."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=handle_of(variable),
            m=handle_of(self._momentums[index]),
            v=handle_of(self._velocities[index]),
            beta1_power=self._powers[0],
            beta2_power=self._powers[1],
            lr=keras.ops.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class MuonForKernels(keras.optimizers.Muon):
    """Keras' Muon, which takes matrices only, for kernels of convolutions too.

    A kernel is the matrix from all that it sees at once to its maps, as in Jordan et al., "Muon: an
    optimizer for hidden layers in neural networks" (2024). Biases have Adam. Updates are as large
    as Adam's, so that both have one rate (Liu et al., "Muon is scalable for LLM training", 2025).
    """

    def zeropower_via_newtonschulz5(self, x: tf.Tensor, steps: int) -> tf.Tensor:
        """As Keras', of which most is done on the smaller side of the matrix.

        All factors of the iteration are polynomials of `x @ x.T`, which is 84 × 84 for LeNet5's
        largest kernel, of 3,000 × 84: that is multiplied twice instead of ten times.
        """
        is_tall = x.shape[0] > x.shape[1]
        x /= tf.norm(x) + 1e-7
        gram = tf.matmul(x, x, transpose_a=is_tall, transpose_b=not is_tall)
        # TensorFlow's operations on diagonals take a number from the processor's memory, for which
        # a GPU waits at each of them.
        side = np.arange(min(x.shape))
        diagonal = self.muon_a * tf.cast(side[:, None] == tf.constant(side), x.dtype)
        whole: tf.Tensor | None = None
        for _ in range(steps):
            factor = self.muon_b * gram + self.muon_c * (gram @ gram) + diagonal
            whole = factor if whole is None else whole @ factor
            gram = factor @ gram @ factor
        return x @ whole if is_tall else whole @ x

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) < 2

    def _muon_update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, lr: tf.Tensor, m: keras.Variable
    ) -> None:
        m.assign_add(gradient + m * (self.momentum - 1))
        matrix = tf.reshape(gradient + self.momentum * m, [-1, variable.shape[-1]])
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        variable.assign_sub(tf.reshape(update, variable.shape))


def build_optimizer(config: TrainConfig, rate: float | WarmupCosine) -> keras.optimizers.Optimizer:
    """The optimizer of a config; slot variables are made when it meets the model."""
    common = {
        # Without a name Keras counts the optimizers of the process, and the variables of a restored
        # one would be called otherwise.
        "name": config.optimizer,
        "learning_rate": rate,
        "weight_decay": config.weight_decay or None,
    }
    match config.optimizer:
        case "sgd":
            return FusedSGD(**common)
        case "momentum":
            return FusedSGD(momentum=MOMENTUM, nesterov=True, **common)
        case "rmsprop":
            return FusedRMSprop(**common)
        case "adam":
            return FusedAdam(**common)
        case "muon":
            return MuonForKernels(adam_weight_decay=common["weight_decay"], **common)
    raise AssertionError(config.optimizer)
