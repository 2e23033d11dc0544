"""Figures with known answers, from tables, by hand or by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from job import stats


def test_mean_and_sample_standard_deviation():
    assert stats.mean_sd([0.99, 0.991, 0.992]) == (pytest.approx(0.991), pytest.approx(0.001))
    assert stats.mean_sd([0.5]) == (0.5, None)
    assert stats.mean_text([0.99, 0.991, 0.992]) == "99.10 ± 0.10 %"
    assert stats.mean_text([0.5]) == "50.00 %"


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


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in
# Medicine 17 (1998), table I, method 3.
NEWCOMBE = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
}


@pytest.mark.parametrize(("counts", "interval"), NEWCOMBE.items())
def test_intervals_of_a_share_are_those_of_the_paper(counts, interval):
    assert stats.share_interval(*counts) == pytest.approx(interval, abs=5e-5)
    hits, count = counts
    low, high = stats.share_interval(count - hits, count)
    assert (1 - high, 1 - low) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize("counts", [(-1, 5), (6, 5), (0, 0)])
def test_what_is_no_share_has_no_interval(counts):
    with pytest.raises(ValueError, match="no share"):
        stats.share_interval(*counts)


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
