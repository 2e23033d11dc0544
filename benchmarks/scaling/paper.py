"""What the model of a step's time says of many workers, each with a processor of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from benchmarks.scaling.model import Coefficients, Setting, predict
from job.errors import InputError

# Of MNIST, without the validation rows.
ROWS = 48_000
MOST_WORKERS = 4096
# Coefficients that are not of a model or of the simulation.
SOFTWARE = ("message", "byte", "hop", "window")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machines:
    """Equal machines, and their network.

    Args:
        name: For tables.
        images_per_second: Of one worker, beyond the time of `step`.
        step: Seconds of a step that don't depend on its batch.
        message: Seconds that software takes for a message between two workers.
        byte: Seconds that software takes for a byte that a worker sends.
        hop: Latencies that a message takes: 1 where it is sent unasked, 2 where it is asked for.
        window: Latencies that pass for each byte, where a sender has to wait before it sends on.
        latency: Seconds that a packet is on its way.
        bandwidth: Bytes per second that a machine sends.

    Raises:
        InputError: A value makes no sense.
    """

    name: str
    images_per_second: float
    step: float
    message: float
    byte: float
    hop: float
    window: float
    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        for name in ("images_per_second", "bandwidth"):
            if not getattr(self, name) > 0:
                raise InputError(name, getattr(self, name), "must be above 0")
        for name in ("step", "message", "byte", "hop", "window", "latency"):
            if not getattr(self, name) >= 0:
                raise InputError(name, getattr(self, name), "must be 0 or more")

    @classmethod
    def as_fitted(cls, coefficients: Mapping[str, float], model: str, **others: object) -> Machines:
        """Workers and software as measured, but for what is named."""
        return cls(
            **{
                "images_per_second": 1 / coefficients[f"image {model}"],
                "step": coefficients[f"step {model}"],
                **{name: coefficients[name] for name in SOFTWARE},
                **others,
            }
        )

    def coefficients(self, model: str) -> Coefficients:
        return {
            f"step {model}": self.step,
            f"image {model}": 1 / self.images_per_second,
            **{name: getattr(self, name) for name in SOFTWARE},
            "wire": 1.0,
            "relayed byte": 0.0,
            "processors": math.inf,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of `workers` at a global batch: seconds of a step, and the speed-up over one worker.

    `efficiency` is the speed-up per worker; its inverse is what an epoch costs in hours of workers,
    in those of one.
    """

    workers: int
    batch: int
    seconds: float
    speedup: float

    @property
    def efficiency(self) -> float:
        return self.speedup / self.workers

    @property
    def worker_hours(self) -> float:
        """Of an epoch, for all workers."""
        return self.workers * math.ceil(ROWS / self.batch) * self.seconds / 3600


def step_seconds(machines: Machines, model: str, workers: int, batch: int) -> float:
    setting = Setting(
        model=model,
        workers=workers,
        batch=batch,
        latency=machines.latency,
        bandwidth=machines.bandwidth,
    )
    return predict(setting, machines.coefficients(model))


def strong(machines: Machines, model: str, workers: int, batch: int) -> Prediction:
    """One batch, divided among the workers, against one worker with all of it."""
    seconds = step_seconds(machines, model, workers, batch)
    alone = step_seconds(machines, model, 1, batch)
    return Prediction(workers=workers, batch=batch, seconds=seconds, speedup=alone / seconds)


def weak(machines: Machines, model: str, workers: int, share: int) -> Prediction:
    """`share` images for each worker, against one worker that takes one share after another."""
    seconds = step_seconds(machines, model, workers, workers * share)
    alone = workers * step_seconds(machines, model, 1, share)
    return Prediction(
        workers=workers, batch=workers * share, seconds=seconds, speedup=alone / seconds
    )


def end_of_strong_scaling(machines: Machines, model: str, batch: int) -> Prediction:
    """The number of workers with which a step of this batch is fastest."""
    most = min(batch, MOST_WORKERS)
    best = min(range(1, most + 1), key=lambda n: step_seconds(machines, model, n, batch))
    return strong(machines, model, best, batch)


def least_share(machines: Machines, model: str, workers: int, efficiency: float) -> int:
    """Images that each worker needs for an efficiency of weak scaling.

    Raises InputError for one that is not between 0 and 1.
    """
    if not 0 < efficiency < 1:
        raise InputError("efficiency", efficiency, "must be between 0 and 1")
    # All but computing takes as long for any share.
    summing = step_seconds(machines, model, workers, workers) - step_seconds(machines, model, 1, 1)
    computing = efficiency / (1 - efficiency) * summing
    return max(1, math.ceil((computing - machines.step) * machines.images_per_second))
