"""One run's settings: the single source of the command line, the run's `config.json`, the sweep
space and the report.

`job/settings.py` says how its fields become options.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from job.errors import InputError
from job.models import MODELS
from job.recipes import RECIPES
from job.settings import (
    Settings,
    check_known,
    check_unchanged,
    choice,
    fields_of,
    flag,
    integer,
    interval,
    number,
    option,
    optional,
    run_name,
    text,
    worker_range,
)

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam")
SCHEDULES = ("constant", "warmup-cosine")
PRECISIONS = ("float32", "mixed_bfloat16")
DATASETS = ("mnist", "fashion-mnist", "cifar10", "own")
DIGITS = ("mnist",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """The settings of one training run. Raises InputError like every `Settings`."""

    model: str = option(
        "lenet5",
        choice(*MODELS),
        f"Model: {', '.join(MODELS)}.",
        metavar="NAME",
    )
    dataset: str = option(
        "mnist",
        choice(*DATASETS),
        f"Data set: {', '.join(DATASETS)} (the one at --data).",
        metavar="NAME",
    )
    data: str | None = option(
        None,
        optional(text),
        "Where the data set is: a folder of IDX files (also .gz), mnist.npz, CIFAR-10 as it is "
        "published or Parquet, or s3://BUCKET/PREFIX of Parquet; without it, it is found or "
        "downloaded.",
        fixed=False,
        metavar="PLACE",
    )
    recipe: str = option(
        "quick",
        choice("quick", "notebook"),
        "Settings to start from: 'quick' (tuned for 2 CPU cores) or 'notebook' "
        "(those of the original). Any other flag overrides it.",
        metavar="NAME",
    )
    epochs: int = option(10, integer(1, 100_000), "Passes over the training rows.")
    batch_size: int = option(
        128, integer(1, 60_000), "Examples per optimizer step, over all workers together."
    )
    optimizer: str = option(
        "momentum",
        choice(*OPTIMIZERS),
        "Optimizer: sgd, momentum (Nesterov, 0.9), rmsprop, adam.",
        metavar="NAME",
    )
    learning_rate: float = option(
        0.1,
        number(above=0, maximum=100),
        "Learning rate; the peak of a schedule.",
        metavar="RATE",
    )
    schedule: str = option(
        "warmup-cosine",
        choice(*SCHEDULES),
        "Learning rate over time: 'constant', or 'warmup-cosine' "
        "(linear rise over the first tenth of the steps, then a cosine to 0).",
        metavar="NAME",
    )
    weight_decay: float = option(
        0.0,
        number(minimum=0, maximum=1),
        "Decoupled weight decay of the optimizer; 0 is off.",
        metavar="RATE",
    )
    label_smoothing: float = option(
        0.0,
        number(minimum=0, maximum=0.9),
        "Train towards labels mixed with this share of a uniform distribution; 0 is off. "
        "Validation and test losses are always against the plain labels.",
        metavar="SHARE",
    )
    augment_shift: int = option(
        0,
        integer(0, 8),
        "Move each training image by up to so many pixels, anew in each epoch; 0 is off.",
    )
    augment_flip: str = option(
        "none",
        choice("none", "horizontal"),
        "Mirror half of the training images, anew in each epoch: none, or horizontal (which digits "
        "do not survive).",
        metavar="NAME",
    )
    precision: str = option(
        "float32",
        choice(*PRECISIONS),
        f"Arithmetic: {', '.join(PRECISIONS)}.",
        metavar="NAME",
    )
    seed: int = option(1, integer(0), "Seed of weights, example order, dropout and augmentation.")
    limit_train: int | None = option(
        None, optional(integer(1)), "Train on the first N training rows only (smoke runs)."
    )
    patience: int | None = option(
        None,
        optional(integer(1)),
        "Stop early after N epochs without a better validation loss.",
    )
    workers: str = option(
        "1",
        worker_range,
        "Workers: a number, or an elastic range such as 2:8 that goes on with what is left. "
        "One runs in this process; more run on Ray.",
        fixed=False,
        metavar="N|MIN:MAX",
    )
    cpus_per_worker: float | None = option(
        None,
        optional(number(above=0, maximum=4096)),
        "Processors of each worker on Ray; as many as fit by default.",
        fixed=False,
    )
    gpus_per_worker: float | None = option(
        None,
        optional(number(minimum=0, maximum=64)),
        "GPUs of each worker on Ray; 1 where the cluster has any.",
        fixed=False,
    )
    device: str = option(
        "auto",
        choice("auto", "gpu", "cpu"),
        "What computes: gpu, cpu, or auto.",
        fixed=False,
        metavar="NAME",
    )
    address: str | None = option(
        None,
        optional(text),
        "Ray cluster: 'auto' (the running one), HOST:PORT, or 'local' (start one here for this "
        "run). Without it, 'auto' where one is running and more than one worker is wanted.",
        fixed=False,
        metavar="WHERE",
    )
    max_failures: int = option(
        3, integer(0), "How often lost workers are replaced before the run fails.", fixed=False
    )
    hang_timeout: float = option(
        6.0,
        number(minimum=1, maximum=3600),
        "Seconds without a sign of life after which workers give up an attempt.",
        fixed=False,
        metavar="SECONDS",
    )
    checkpoint_every: str = option(
        "30s",
        interval,
        "Checkpoint every N steps (500) or seconds (30s), and at each epoch's end.",
        fixed=False,
        metavar="N|Ns",
    )
    storage: str = option(
        "runs",
        text,
        "Where runs are kept: a folder, or s3://BUCKET/PREFIX.",
        fixed=False,
        metavar="PLACE",
    )
    storage_timeout: float = option(
        600.0,
        number(minimum=1, maximum=86400),
        "Seconds for which an object store may stay away before the run fails; training goes on "
        "meanwhile, checkpoints wait.",
        fixed=False,
        metavar="SECONDS",
    )
    name: str | None = option(
        None,
        optional(run_name),
        "Name of the run and its folder; a run of that name that was interrupted goes on. "
        "Without it a readable name is made.",
        fixed=False,
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment_flip != "none" and self.dataset in DIGITS:
            raise InputError(
                flag("augment_flip"),
                self.augment_flip,
                f"a mirrored digit of {self.dataset} is another sign; leave it out",
            )

    @property
    def digest(self) -> str:
        """SHA-256 over the fixed settings: checkpoints of another job are never restored.

        Defaults are left out, so that a setting added later, off by default, does not lock the
        runs made before it.
        """
        chosen = {k: v for k, v in self.fixed_dict().items() if v != FIELDS[k].default}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def worker_limits(self) -> tuple[int, int]:
        """Least and greatest number of workers."""
        least, _, most = self.workers.partition(":")
        return int(least), int(most or least)

    @property
    def checkpoint_steps(self) -> int | None:
        return None if self.checkpoint_every.endswith("s") else int(self.checkpoint_every)

    @property
    def checkpoint_seconds(self) -> float | None:
        every = self.checkpoint_every
        return float(every[:-1]) if every.endswith("s") else None


FIELDS: dict[str, dataclasses.Field] = fields_of(TrainConfig)


def resolve(given: Mapping[str, Any]) -> TrainConfig:
    """Builds the config of a new run: what was given, over the recipe, over the defaults.

    Raises:
        InputError: An unknown key or an unusable value.
    """
    check_known(given, FIELDS)
    # The recipe of a model needs both names checked first.
    chosen = TrainConfig(**{k: given[k] for k in ("model", "recipe") if k in given})
    return TrainConfig(**{**RECIPES[chosen.recipe][chosen.model], **given})


def command_of(config: TrainConfig) -> str:
    """What to type to train a new run with the settings of this one."""
    given = {"model": config.model, "recipe": config.recipe}
    usual = resolve(given)
    for name, value in {
        **config.fixed_dict(),
        "data": config.data,
        "workers": config.workers,
    }.items():
        if value != getattr(usual, name):
            given[name] = value
    return shlex.join(
        ["lenet", "train", *(word for k, v in given.items() for word in (flag(k), str(v)))]
    )


def resume(stored: Mapping[str, Any], given: Mapping[str, Any]) -> TrainConfig:
    """Builds the config with which an interrupted run goes on.

    Flags that were not given keep the run's own value; a given one must agree with it where it
    decides the result.

    Raises:
        InputError: `given` names a fixed setting with another value than the run was started with.
    """
    config = TrainConfig(**{**stored, **{k: v for k, v in given.items() if k in FIELDS}})
    begun = TrainConfig(**stored).fixed_dict()
    check_unchanged(f"run {config.name!r}", begun, config.fixed_dict(), given)
    return config
