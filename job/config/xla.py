"""Whether a run's steps are compiled with XLA: asked for, or by default as measured.

It is decided once, when the run starts. Its settings keep the decision: another one would change
its bits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from job.errors import InputError
from job.models.source import is_own

if TYPE_CHECKING:
    from job.config.config import TrainConfig

MAX_POOLING = ("alexnet",)
# From here on TensorFlow 2.21 ends the process: the PTX that its XLA makes does not know such GPUs.
UNKNOWN = (10, 0)


def launched(
    config: TrainConfig, kind: str, capability: tuple[int, int] | None = None
) -> TrainConfig:
    """The settings with which a run starts.

    Args:
        config: What is asked for.
        kind: The kind of device that is expected to train, `gpu` or `cpu`.
        capability: The GPU's compute capability, where it is known.

    Raises:
        InputError: XLA is asked for where it can't work.
    """
    problem = _problem(config, capability) if kind == "gpu" else ""
    if config.xla and problem:
        raise InputError("--xla", None, problem)
    if config.xla is not None:
        return config
    # A processor is slower with it: LeNet5 at 2,300 against 2,800 images/s at batch 32. A GPU that
    # trains alone is several times faster (docs/studies/gpu.md); several have not been measured,
    # and of a card that is not known here nobody can tell whether it works.
    # Nor what a user's own model is made of.
    is_known = capability is not None and not is_own(config.model)
    is_faster = kind == "gpu" and is_known and config.worker_limits == (1, 1)
    return dataclasses.replace(config, xla=is_faster and not problem)


def decided(config: TrainConfig) -> TrainConfig:
    """Settings as kept and trained: without XLA where a program never called `launched`."""
    return dataclasses.replace(config, xla=bool(config.xla))


def _problem(config: TrainConfig, capability: tuple[int, int] | None) -> str:
    """Why XLA can't work on a GPU; empty where it can."""
    if config.model in MAX_POOLING and config.deterministic:
        return (
            f"XLA has no deterministic gradient of max pooling on GPUs, which {config.model} needs;"
            " take --no-deterministic or --no-xla"
        )
    if capability and capability >= UNKNOWN:
        card = ".".join(map(str, capability))
        return (
            f"TensorFlow's XLA does not know GPUs of compute capability {card}; take --no-xla, "
            "or, where a run began with it, another card or --device cpu"
        )
    return ""
