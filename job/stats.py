"""What figures of several runs, or the answers of two models, allow one to say.

SciPy, which takes a while to import, is imported where it is needed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """Both ends of a confidence interval, from 0 to 1."""

    low: float
    high: float


class McNemar(NamedTuple):
    """Two models on the same examples.

    Attributes:
        only_first, only_second: Examples that one of them alone has right.
        p_value: Two-sided: how probable a difference as great or greater is where both are right
            equally often.
    """

    only_first: int
    only_second: int
    p_value: float


def mean_sd(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for that of a single value."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def mean_text(values: Iterable[float]) -> str:
    """Shares as `99.16 ± 0.04 %`, mean and standard deviation; a single one as `99.16 %`."""
    mean, sd = mean_sd(values)
    return f"{100 * mean:.2f} %" if sd is None else f"{100 * mean:.2f} ± {100 * sd:.2f} %"


def interval_text(interval: Sequence[float]) -> str:
    """Two shares as `99.11 to 99.21 %`."""
    low, high = (f"{100 * end:.2f}" for end in interval)
    return f"{low} to {high} %"


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's confidence interval of the mean of at least two shares, within [0, 1]."""
    from scipy.stats import t

    mean, sd = mean_sd(values)
    if sd is None:
        raise ValueError("one value has no spread")
    reach = t.ppf((1 + level) / 2, len(values) - 1) * sd / math.sqrt(len(values))
    return Interval(max(0.0, mean - reach), min(1.0, mean + reach))


def share_interval(hits: int, count: int, level: float = LEVEL) -> Interval:
    """The score interval of a share, which stays within [0, 1] and is not empty at its ends.

    Wilson 1927; Newcombe, Statistics in Medicine 17, 1998, method 3.

    Args:
        hits: How often it held.
        count: Of how many independent examples, at least 1.
        level: Share of such intervals that hold the true share.

    Raises:
        ValueError: `hits` is not between 0 and `count`.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} is no share")
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    share = hits / count
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's test, exact (Psychometrika 1947).

    Recommended for one test set by Dietterich, "Approximate statistical tests for comparing
    supervised classification learning algorithms", Neural Computation 1998.

    Args:
        first: Whether the first model has an example right, bool (n,).
        second: The same of the second.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p_value = binomtest(only_first, differing).pvalue if differing else 1.0
    return McNemar(only_first, only_second, float(p_value))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, so that the probability of any false alarm is kept.

    Holm, Scandinavian Journal of Statistics 1979.
    """
    adjusted = [0.0] * len(p_values)
    greatest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, greatest)
    return adjusted
