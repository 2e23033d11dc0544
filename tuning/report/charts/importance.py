"""How much each parameter matters, by a measure that a few trials can bear.

Trials are ranked by validation accuracy and put into groups by the parameter's value. Epsilon
squared of Kruskal and Wallis (1952; Tomczak & Tomczak 2014) is the share of the ranking's variance
that the groups explain, corrected for what groups of that number explain of nothing. It knows no
model, looks at ranks alone, so that one trial that diverged does not decide it, and needs the
parameter only of the trials that have it. How often shuffled ranks do as well says whether chance
will do for an explanation.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from job.errors import InputError
from tuning.records import Sweep, Trial
from tuning.report.charts.parameters import ABSENT, FEW, Parameter, parameters_of, plain
from tuning.report.text import share
from tuning.space.space import SearchRange, parse_space

# Below this, hardly any arrangement is rarer than chance.
MIN_TRIALS = 8
SHUFFLES = 2000
CLEAR = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """What is known of one parameter.

    Attributes:
        name: The parameter.
        trials: How many trials have it and an accuracy.
        share: Share of the ranking that it explains, 0 to 1; None where too few trials tell.
        chance: How often shuffled ranks explain as much.
        best: The value, or range of values, with the highest median accuracy.
        median: That median.
        problem: Why there is no share.
    """

    name: str
    trials: int
    share: float | None = None
    chance: float | None = None
    best: str = ""
    median: float | None = None
    problem: str = ""

    @property
    def is_clear(self) -> bool:
        """Whether shuffled ranks explain as much in at most `CLEAR` of cases; no if unknown."""
        return self.chance is not None and self.chance <= CLEAR


def drawn_parameters(sweep: Sweep, trials: Sequence[Trial]) -> list[Parameter]:
    """What the sampler drew for the trials, which is what can have mattered.

    A setting that was scaled with another would be mistaken for it. A setting with several ranges,
    such as one for each optimizer, counts by where in its range it was drawn; each range of its own
    is there too where enough trials drew from it.
    """
    try:
        ways = parse_space(sweep.space, sweep.name, is_kept=True).parameters
    except InputError:
        ways = ()
    if not ways or not all(trial.plan.drawn.keys() <= {w.key for w in ways} for trial in trials):
        return parameters_of([trial.plan.settings for trial in trials])
    found = {p.name: p for p in parameters_of([trial.plan.drawn for trial in trials])}
    by_field: dict[str, list[SearchRange]] = {}
    for way in ways:
        by_field.setdefault(way.field, []).append(way)
    parameters: list[Parameter] = []
    for field, several in by_field.items():
        own = [found[way.key] for way in several if way.key in found]
        if len(several) > 1 and not any(way.values for way in several):
            places = [_place(several, trial) for trial in trials]
            name = f"{field}, within its range"
            parameters.append(Parameter(name=name, values=tuple(places), of_range=True))
            own = [parameter for parameter in own if len(parameter.present) >= MIN_TRIALS]
        parameters += own
    return parameters


def _place(ways: Sequence[SearchRange], trial: Trial) -> float | None:
    """Where in its range, from 0 to 1, a trial's value was drawn."""
    for way in ways:
        if way.key in trial.plan.drawn:
            return way.place(trial.plan.drawn[way.key])
    return ABSENT


def importances(
    parameters: Sequence[Parameter], accuracies: Sequence[float | None]
) -> list[Importance]:
    """The parameters with what they explain, the most important first.

    Args:
        parameters: With their values by trial.
        accuracies: Of the same trials; None for one without an epoch.
    """
    found = [_importance(parameter, accuracies) for parameter in parameters]
    return sorted(found, key=lambda i: -1.0 if i.share is None else i.share, reverse=True)


def _importance(parameter: Parameter, accuracies: Sequence[float | None]) -> Importance:
    pairs = [
        (value, accuracy)
        for value, accuracy in zip(parameter.values, accuracies, strict=True)
        if value is not ABSENT and accuracy is not None
    ]
    count = len(pairs)
    if count < MIN_TRIALS:
        problem = f"too few trials to tell; {MIN_TRIALS} are needed"
        return Importance(name=parameter.name, trials=count, problem=problem)
    groups, labels = grouped([value for value, _ in pairs], parameter)
    if len(labels) == 1:
        return Importance(name=parameter.name, trials=count, problem="had one value only")
    if len(labels) > count // 2:
        problem = f"too many values ({len(labels)}) for so few trials"
        return Importance(name=parameter.name, trials=count, problem=problem)
    values = [accuracy for _, accuracy in pairs]
    share, chance = epsilon_squared(groups, values)
    medians = {
        label: statistics.median(v for v, g in zip(values, groups, strict=True) if g == index)
        for index, label in enumerate(labels)
    }
    best = max(medians, key=lambda label: medians[label])
    return Importance(
        name=parameter.name,
        trials=count,
        share=share,
        chance=chance,
        best=best,
        median=medians[best],
    )


def grouped(values: Sequence[Any], parameter: Parameter) -> tuple[list[int], list[str]]:
    """The group of each value, and the groups' labels.

    These are the values themselves, or, of numbers with many values, the lowest, middle and highest
    third.
    """
    show = share if parameter.of_range else plain
    levels = sorted(set(values), key=float) if parameter.is_number else []
    if len(levels) > FEW:
        cuts = [levels[len(levels) * part // 3] for part in (1, 2)]
        groups = [sum(value >= cut for cut in cuts) for value in values]
        labels = []
        for group in range(3):
            members = [v for v, g in zip(values, groups, strict=True) if g == group]
            labels.append(f"{show(min(members))} to {show(max(members))}")
        return groups, labels
    texts = [plain(value) for value in values]
    labels = list(dict.fromkeys(map(plain, levels))) or sorted(set(texts))
    return [labels.index(text) for text in texts], labels


def epsilon_squared(groups: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Share of `values`' ranking that `groups` explain, 0 to 1; how often chance does as well."""
    import numpy as np
    from scipy.stats import kruskal, permutation_test, rankdata

    if len(set(values)) == 1:
        return 0.0, 1.0
    members = np.equal.outer(sorted(set(groups)), groups)

    def between(ranks: np.ndarray, axis: int) -> np.ndarray:
        """What tells Kruskal's statistics of the same ranks apart."""
        return ((ranks @ members.T) ** 2 / members.sum(axis=1)).sum(axis=-1)

    # One sample whose members change places: of several, none may be as small as one value.
    shuffled = permutation_test(
        (rankdata(values),),
        between,
        permutation_type="pairings",
        n_resamples=SHUFFLES,
        alternative="greater",
        rng=0,
    )
    statistic = kruskal(*(np.asarray(values)[one] for one in members)).statistic
    share = (statistic - len(members) + 1) / (len(values) - len(members))
    return min(max(float(share), 0.0), 1.0), float(shuffled.pvalue)
