"""Optimizers and learning-rate schedules from a config, all Keras' own."""

from __future__ import annotations

import keras

from job.config import TrainConfig

WARMUP_FRACTION = 0.1
MOMENTUM = 0.9


def learning_rate(
    config: TrainConfig, total_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """A constant, or a linear warm-up over the first tenth of `total_steps` and a cosine to 0
    (Goyal et al. 2017; Loshchilov & Hutter 2017)."""
    if config.schedule == "constant":
        return config.learning_rate
    warmup = int(total_steps * WARMUP_FRACTION)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=total_steps - warmup,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def build_optimizer(config: TrainConfig, total_steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a config; slot variables are made when it meets the model."""
    common = {
        # Without a name Keras counts the optimizers of the process, and the variables of a restored
        # one would be called otherwise.
        "name": config.optimizer,
        "learning_rate": learning_rate(config, total_steps),
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
