"""The learning rate of a step: one formula, for compiled steps and for whoever reports of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from job.config.config import TrainConfig

WARMUP_FRACTION = 0.1


def warmup_steps(total_steps: int) -> int:
    """Steps of a run in which the rate rises."""
    return int(total_steps * WARMUP_FRACTION)


def warmup_cosine(step: Any, peak: Any, warmup: Any, decay: Any, module: Any) -> Any:
    """A linear warm-up and a cosine to 0.

    After Goyal et al. 2017 and Loshchilov & Hutter 2017, by the formula of
    `keras.optimizers.schedules.CosineDecay`.

    Args:
        step: From 0.
        peak: The rate at the end of the warm-up.
        warmup: Steps in which it rises.
        decay: Steps in which it falls.
        module: What computes: TensorFlow or NumPy.
    """
    step = module.minimum(step, decay + warmup)
    rising = peak * (step / warmup)
    falling = peak * (0.5 * (1.0 + module.cos(math.pi * ((step - warmup) / decay))))
    return module.where(step < warmup, rising, falling)


def rate_of(config: TrainConfig, step: int, total_steps: int) -> float:
    """The learning rate with which a run does a step, from 0, of so many."""
    if config.schedule == "constant":
        return config.learning_rate
    warmup = warmup_steps(total_steps)
    now, peak, rising, falling = map(
        np.float64, (step, config.learning_rate, warmup, total_steps - warmup)
    )
    # A run of a few steps has no warm-up, and `where` evaluates both sides.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(warmup_cosine(now, peak, rising, falling, np))
