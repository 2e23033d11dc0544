"""Optimizers and learning-rate schedules from a config, all Keras' own."""

from __future__ import annotations

import keras
import tensorflow as tf

from job.config import TrainConfig

WARMUP_FRACTION = 0.1
MOMENTUM = 0.9


class WarmupCosine(keras.optimizers.schedules.CosineDecay):
    """A linear warm-up over the first tenth of a run and a cosine to 0 (Goyal et al. 2017;
    Loshchilov & Hutter 2017).

    Its numbers are variables, so that compiled steps serve another run with other ones.

    Args:
        peak: Learning rate at the end of the warm-up.
        total_steps: Steps of the whole run.
    """

    def __init__(self, peak: float, total_steps: int) -> None:
        # Float32, as Keras casts plain numbers; steps are exact in it up to 16 million.
        numbers = [tf.Variable(0.0, name=name) for name in ("decay_steps", "warmup_steps", "peak")]
        self._numbers = numbers
        self.set(peak, total_steps)
        super().__init__(0.0, numbers[0], warmup_steps=numbers[1], warmup_target=numbers[2])

    def set(self, peak: float, total_steps: int) -> None:
        """Makes it that of another run."""
        warmup = int(total_steps * WARMUP_FRACTION)
        for variable, value in zip(
            self._numbers, (total_steps - warmup, warmup, peak), strict=True
        ):
            variable.assign(value)


def learning_rate(config: TrainConfig, total_steps: int) -> float | WarmupCosine:
    """The learning rate of a config: a number, or a schedule over `total_steps`."""
    if config.schedule == "constant":
        return config.learning_rate
    return WarmupCosine(config.learning_rate, total_steps)


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
            return keras.optimizers.SGD(**common)
        case "momentum":
            return keras.optimizers.SGD(momentum=MOMENTUM, nesterov=True, **common)
        case "rmsprop":
            return keras.optimizers.RMSprop(**common)
        case "adam":
            return keras.optimizers.Adam(**common)
    raise AssertionError(config.optimizer)
