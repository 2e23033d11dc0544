"""One sweep's settings, beside those of the runs that it makes.

`lenet sweep` takes the options of `lenet train` too: what is given there holds for all trials, and
is not searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from cluster.capacity import Share
from job.config.config import FIELDS, TrainConfig
from job.config.fields import (
    Settings,
    check_given,
    choice,
    fields_of,
    integer,
    number,
    option,
    optional,
    parse_duration,
    place,
)
from job.config.resolve import over_recipe, resolve
from job.errors import InputError

SEARCHES = ("random", "optuna", "grid")
SCHEDULERS = ("asha", "fifo")
DEFAULT_TRIALS = 16
SEARCH = "Search"
# Settings of a run that a sweep has its own words for.
REPLACED = ("epochs", "workers", "cpus_per_worker", "gpus_per_worker")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(Settings):
    """The settings of one sweep. Raises InputError like every `Settings`."""

    trials: int | None = option(
        None,
        optional(integer(1, 100_000)),
        f"Settings to try: {DEFAULT_TRIALS} by default, or the whole grid.",
        group=SEARCH,
    )
    search: str = option(
        "random",
        choice(*SEARCHES),
        "How settings are picked; optuna is its TPE.",
        metavar="NAME",
        group=SEARCH,
    )
    scheduler: str = option(
        "asha",
        choice(*SCHEDULERS),
        "asha stops trials that fall behind after 1, 3, 9, ... epochs; fifo trains all to their "
        "end.",
        metavar="NAME",
        group=SEARCH,
    )
    max_epochs: int | None = option(
        None,
        optional(integer(1, 100_000)),
        "Epochs of a whole trial; by default the recipe's.",
        group=SEARCH,
    )
    space: str | None = option(
        None,
        optional(place),
        "TOML or YAML file of what to search instead of batch size, optimizer and learning rate.",
        metavar="FILE",
        fixed=False,
        group=SEARCH,
    )
    finalists: int = option(
        3,
        integer(1, 1000),
        "How many of the best settings are trained again with --repeats.",
        group=SEARCH,
    )
    repeats: int = option(
        0,
        integer(0, 1000),
        "Train each finalist with so many more seeds; the best mean wins.",
        group=SEARCH,
    )
    workers_per_trial: int = option(
        1,
        integer(1, 10_000),
        "Workers of each trial; one trains in a process that is kept warm for the next.",
        group=SEARCH,
    )
    cpus_per_trial: float | None = option(
        None,
        optional(number(above=0, maximum=4096)),
        "Processors of each trial, all its workers together; 1 for each worker by default.",
        group=SEARCH,
    )
    gpus_per_trial: float | None = option(
        None,
        optional(number(minimum=0, maximum=4096)),
        "GPUs of each trial; 0.25 shares one among four. By default 1 for each worker where the "
        "cluster has any.",
        group=SEARCH,
    )
    time_budget: float | None = option(
        None,
        optional(parse_duration),
        "Start no trial, and stop those in training, so long after the command began (30m).",
        metavar="TIME",
        fixed=False,
        group=SEARCH,
    )

    @property
    def wanted_trials(self) -> int:
        """Settings to try at random or with Optuna, where the space has so many."""
        return self.trials or DEFAULT_TRIALS

    @property
    def share(self) -> Share:
        """What each worker of a trial gets; call it when both are known."""
        workers = self.workers_per_trial
        # No assertion: whoever reads a sweep's file that lacks them relies on the TypeError.
        cpus, gpus = cast(float, self.cpus_per_trial), cast(float, self.gpus_per_trial)
        return Share(cpus / workers, gpus / workers)


def check_share(config: SweepConfig) -> None:
    """Raises InputError where a worker would get more than a GPU."""
    gpus, workers = config.gpus_per_trial, config.workers_per_trial
    if gpus is not None and gpus > workers:
        raise InputError(
            "--gpus-per-trial",
            gpus,
            f"is more than 1 for each of --workers-per-trial {workers}: a worker computes on one "
            "GPU",
        )


SWEEP_FIELDS = fields_of(SweepConfig)
RUN_FIELDS = {name: field for name, field in FIELDS.items() if name not in REPLACED}


def split(given: Mapping[str, Any]) -> tuple[SweepConfig, TrainConfig, dict[str, Any]]:
    """Divides what the user gave into the sweep's settings and those of all its runs.

    Returns:
        The sweep's settings; a run's, with everything that was given for it; and of these what all
        trials have in common, by field name.

    Raises:
        InputError: An unknown key or an unusable value.
    """
    check_given(given, SWEEP_FIELDS, RUN_FIELDS)
    config = SweepConfig(**{k: v for k, v in given.items() if k in SWEEP_FIELDS})
    common = resolve({k: v for k, v in given.items() if k in RUN_FIELDS})
    # As the config parsed them: a sweep's file holds numbers, not what was typed. Each run has its
    # own name and place.
    base = {
        k: getattr(common, k) for k in RUN_FIELDS if k in given and k not in ("name", "storage")
    }
    return config, common, base


def epochs_of(config: SweepConfig, base: Mapping[str, Any]) -> int:
    """Epochs of a whole trial."""
    return config.max_epochs or over_recipe(base).epochs


def trial_config(
    config: SweepConfig,
    base: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    name: str,
    storage: str,
    seed: int,
) -> TrainConfig:
    """A trial's settings: its point of the space, over those of all trials, over its recipe."""
    own = {
        "name": name,
        "storage": storage,
        "seed": seed,
        "epochs": epochs_of(config, base),
        "workers": str(config.workers_per_trial),
    }
    if config.workers_per_trial > 1:
        own["cpus_per_worker"] = config.share.cpus
        own["gpus_per_worker"] = config.share.gpus
    return over_recipe({**base, **settings, **own})
