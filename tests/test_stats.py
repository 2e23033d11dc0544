"""Figures with known answers, from tables, by hand or by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from job import stats


def test_mean_and_sample_standard_deviation():
    assert stats.mean_sd([0.99, 0.991, 0.992]) == (pytest.approx(0.991), pytest.approx(0.001))
    assert stats.mean_sd([0.5]) == (0.5, None)
    assert stats.percent([0.99, 0.991, 0.992]) == "99.10 ± 0.10 %"
    assert stats.percent([0.5]) == "50.00 %"


def test_interval_of_a_mean():
    """t(0.975, 2) = 4.303 in any table."""
    reach = 4.3027 * 0.001 / math.sqrt(3)
    low, high = stats.mean_interval([0.989, 0.99, 0.991])
    assert (low, high) == (pytest.approx(0.99 - reach), pytest.approx(0.99 + reach))
    assert stats.mean_interval([0.99, 0.99]) == (0.99, 0.99)
    assert stats.mean_interval([0.98, 1.0]).high == 1.0
    with pytest.raises(ValueError, match="no spread"):
        stats.mean_interval([0.99])


def test_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(1).normal(0.9, 0.01, (2000, 4))
    found = [stats.mean_interval(sample) for sample in samples]
    covered = np.mean([low <= 0.9 <= high for low, high in found])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_interval_of_a_share():
    """None of n wrong: the bound that has none wrong with probability 0.025."""
    low, high = stats.share_interval(100, 100)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 100)), 1.0)
    low, high = stats.share_interval(9900, 10_000)
    assert low < 0.99 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.99 * 0.01 / 10_000), rel=0.05)


def test_mcnemar_counts_only_what_differs():
    first = np.array([True] * 9 + [False] * 1 + [True] * 50 + [False] * 7)
    second = np.array([False] * 9 + [True] * 1 + [True] * 50 + [False] * 7)
    # Ten coins of which at most one falls on its rarer side: 2 · (1 + 10) / 2¹⁰.
    assert stats.mcnemar(first, second) == (9, 1, pytest.approx(22 / 1024))
    assert stats.mcnemar(second, first) == (1, 9, pytest.approx(22 / 1024))
    assert stats.mcnemar(first, first) == (0, 0, 1.0)
    assert stats.mcnemar(np.array([True, False]), np.array([False, True])) == (1, 1, 1.0)


def test_holm_steps_down_and_never_falls():
    """The example of R's p.adjust: 0.01 · 3, then 0.03 · 2, which 0.04 · 1 may not be below."""
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []
