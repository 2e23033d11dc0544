"""How far a measured share may lie from the true one."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927; Newcombe, Statistics in Medicine 17, 1998,
    method 3), which stays within [0, 1] and is not empty at its ends.

    Args:
        hits: How often it held.
        count: Of how many independent examples, at least 1.
        confidence: Share of such intervals that hold the true proportion.

    Raises:
        ValueError: `hits` is not between 0 and `count`.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"{hits} of {count} is no proportion")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / count
    scale = 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)
