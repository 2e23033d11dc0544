"""How long a training step takes with N workers: a sum of terms, fitted to measurements.

    t = share · (step + image · ⌈batch / N⌉)              computing; `step`, `image` of a model
      + 2 (N − 1) · (hop · latency + share · message)     messages, one after another
      + 2 (N − 1) / N · bytes · (wire / bandwidth + latency · window + share · byte)

The sum of gradients goes round a ring twice, in 2 (N − 1) messages of bytes / N each: Thakur,
Rabenseifner and Gropp, Optimization of Collective Communication Operations in MPICH, 2005; that
none needs less bandwidth: Patarasuk and Yuan, Bandwidth Optimal All-reduce Algorithms for Clusters
of Workstations, 2009. `hop` and `wire` are 1 in theory. `message` and `byte` are the seconds
that software takes for a message and for a byte of it; `window` is how often a latency passes for
each byte, as a sender waits for the receiver's leave to send on.
`share` = max(1, N / processors): workers that share processors have less of one each, to compute
and to pass messages on. How many processors there are is fitted too: two threads of one core are
less than two.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from job.errors import InputError

# Parameters in float32: what is summed at each step.
MODELS = {"lenet5": 4 * 303_626, "ffnn": 4 * 669_706}
# A step that only sums one number, by which messages are told from bytes.
EMPTY = "empty"
BYTES = {**MODELS, EMPTY: 4}
HELD_OUT, SEED = 1 / 3, 7
# Processors that other programs may use beside a measurement.
QUIET = 0.15

Coefficients = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What the time of a step depends on.

    Args:
        model: A key of `BYTES`.
        workers: How many train, each on a host of its own.
        batch: Images of a step, of all workers together.
        latency: Seconds that a packet is on its way.
        bandwidth: Bytes per second that a host can send; None where nothing limits it.
        relayed: Packets pass the relay of the simulation, which takes processor time.

    Raises:
        InputError: A value makes no sense.
    """

    model: str
    workers: int
    batch: int
    latency: float = 0.0
    bandwidth: float | None = None
    relayed: bool = False

    def __post_init__(self) -> None:
        if self.model not in BYTES:
            raise InputError("model", self.model, f"choose one of {', '.join(BYTES)}")
        if self.workers < 1:
            raise InputError("workers", self.workers, "must be 1 or more")
        if self.batch < self.workers:
            raise InputError("batch", self.batch, f"must be {self.workers} or more: one a worker")
        if self.latency < 0:
            raise InputError("latency", self.latency, "must be 0 or more seconds")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise InputError("bandwidth", self.bandwidth, "must be above 0 bytes per second")

    @property
    def messages(self) -> int:
        """That follow one another in a step."""
        return 2 * (self.workers - 1)

    @property
    def traffic(self) -> float:
        """Bytes that each worker sends in a step."""
        return self.messages / self.workers * BYTES[self.model]


def terms(setting: Setting, processors: float) -> dict[str, float]:
    """What each coefficient is multiplied with; those that are not named, with 0.

    Args:
        setting: Of the step.
        processors: For all workers together, where each uses one at most.
    """
    share = max(1.0, setting.workers / processors)
    computing = {
        f"step {setting.model}": share,
        f"image {setting.model}": share * -(-setting.batch // setting.workers),
    }
    return {
        **(computing if setting.model in MODELS else {}),
        "hop": setting.messages * setting.latency,
        "message": share * setting.messages,
        "wire": setting.traffic / setting.bandwidth if setting.bandwidth else 0.0,
        "window": setting.traffic * setting.latency,
        "byte": share * setting.traffic,
        # One relay passes on what all of them send.
        "relayed byte": setting.workers * setting.traffic if setting.relayed else 0.0,
    }


def predict(setting: Setting, coefficients: Mapping[str, float]) -> float:
    """Seconds of a step."""
    values = terms(setting, coefficients["processors"])
    return sum(coefficients[name] * value for name, value in values.items())


def fit(points: Sequence[tuple[Setting, float]], processors: int) -> Coefficients:
    """Coefficients of 0 or more with the least squares of relative errors.

    Args:
        points: Settings, and the seconds that a step took.
        processors: There are at most so many, and at least one.

    Raises:
        InputError: The points don't tell the coefficients apart.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda count: _solve(points, count)[1],
        bounds=(1.0, processors),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return {**_solve(points, found.x)[0], "processors": float(found.x)}


def _solve(
    points: Sequence[tuple[Setting, float]], processors: float
) -> tuple[Coefficients, float]:
    """The other coefficients, and how far off they are."""
    from scipy.optimize import nnls

    rows = [terms(setting, processors) for setting, _ in points]
    names = list(dict.fromkeys(name for row in rows for name in row))
    seconds = np.array([value for _, value in points])
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows]) / seconds[:, None]
    # Latencies are small numbers and bytes large ones.
    scale = np.linalg.norm(table, axis=0)
    if np.any(scale == 0) or np.linalg.matrix_rank(table / scale) < len(names):
        unknown = ", ".join(name for name, size in zip(names, scale, strict=True) if size == 0)
        raise InputError(
            "points",
            len(points),
            f"do not tell {unknown or 'all coefficients'} apart; measure more",
        )
    solved, distance = nnls(table / scale, np.ones(len(points)))
    return dict(zip(names, (solved / scale).tolist(), strict=True)), distance


def setting_of(point: Mapping[str, Any]) -> Setting:
    """Of a measured point; the latency is half of the round trip that was measured beside it."""
    known = {field.name: point[field.name] for field in dataclasses.fields(Setting)}
    return Setting(**{**known, "latency": point.get("round_trip", 0.0) / 2})


def observed(points: Sequence[Mapping[str, Any]]) -> list[tuple[Setting, float]]:
    """Settings, and the median seconds of a step."""
    return [(setting_of(point), statistics.median(point["seconds"])) for point in points]


def disturbed(points: Sequence[Mapping[str, Any]]) -> int:
    """How many points were measured while other programs used the processors, or may have."""
    return sum(point.get("others", math.inf) > QUIET for point in points)


def divided(points: Sequence[Any], seed: int = SEED) -> tuple[list[Any], list[Any]]:
    """Those to fit, and a third that is held out, by chance; both in their order."""
    chosen = set(random.Random(seed).sample(range(len(points)), round(HELD_OUT * len(points))))
    kept, held_out = [], []
    for index, point in enumerate(points):
        (held_out if index in chosen else kept).append(point)
    return kept, held_out


def errors(
    points: Sequence[tuple[Setting, float]], coefficients: Mapping[str, float]
) -> list[float]:
    """(predicted − measured) / measured of each point."""
    return [predict(setting, coefficients) / t - 1 for setting, t in points]


def fitted(points: Sequence[dict[str, Any]], processors: int) -> dict[str, Any]:
    """`coefficients` of two thirds of the points, and relative errors, by their median and worst.

    `fit_errors` are those of the two thirds, `held_out_errors` those of the others.
    """
    kept, held_out = divided(observed(points))
    coefficients = fit(kept, processors)
    found = {
        "fit_errors": errors(kept, coefficients),
        "held_out_errors": errors(held_out, coefficients),
    }
    sizes = {name: [abs(value) for value in values] for name, values in found.items()}
    return {
        "coefficients": coefficients,
        **{
            name: {"points": len(values), "median": statistics.median(values), "worst": max(values)}
            for name, values in sizes.items()
        },
    }
