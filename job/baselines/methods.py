"""Classical methods, as entries of `METHODS`, and the settings of `lenet baselines`.

An entry is all that another method takes. Nothing here computes, so that the command line starts
at once.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, TypedDict

from job.config.config import FIELDS
from job.config.fields import Settings, fields_of, option, optional, run_name, several, text

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A classical method.

    Attributes:
        name: What it is called.
        features: What it is given, a key of `job.baselines.features.KINDS`.
        components: Principal components of these that are kept; None for the features themselves.
        kernel: Arguments of `sklearn.svm.SVC`; None for nearest neighbours.
        candidates: The settings that are compared.
    """

    name: str
    features: str
    components: int | None = None
    kernel: Values | None
    candidates: tuple[Values, ...]


class Alike(TypedDict):
    """What methods that learn alike share; see `Method`."""

    kernel: Values | None
    candidates: tuple[Values, ...]


def grid(**values: tuple) -> tuple[Values, ...]:
    """All combinations of values, as settings."""
    return tuple(
        dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())
    )


NEIGHBOURS: Alike = {
    "kernel": None,
    "candidates": grid(neighbours=(1, 3, 4, 5, 6, 8, 10), weights=("uniform", "distance")),
}
# Features have a mean square length of 1, so that gamma means the same for all of them.
GAUSSIAN: Alike = {
    "kernel": {"kernel": "rbf"},
    "candidates": grid(C=(1.0, 4.0, 16.0), gamma=(0.25, 0.5, 1.0, 2.0, 4.0)),
}
POLYNOMIAL: Alike = {
    "kernel": {"kernel": "poly", "degree": 9, "coef0": 1.0},
    "candidates": grid(C=(0.1, 1.0), gamma=(0.125, 0.25, 0.5, 1.0)),
}

METHODS = {
    method.name: method
    for method in (
        Method(name="knn-pixels", features="pixels", **NEIGHBOURS),
        Method(name="knn-deskewed", features="deskewed", components=50, **NEIGHBOURS),
        Method(name="knn-gradients", features="gradients", components=80, **NEIGHBOURS),
        Method(name="svm-pixels", features="pixels", components=50, **GAUSSIAN),
        Method(name="svm-deskewed", features="deskewed", components=50, **GAUSSIAN),
        Method(name="svm-poly9", features="deskewed", components=50, **POLYNOMIAL),
        Method(name="svm-gradients", features="gradients", components=80, **GAUSSIAN),
    )
}


def same_as(field: str) -> Any:
    """The option of that name of `lenet train`."""
    found = FIELDS[field]
    return dataclasses.field(default=found.default, metadata=found.metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineConfig(Settings):
    """The settings of one study of baselines. Raises InputError like every `Settings`."""

    methods: tuple[str, ...] = option(
        ",".join(METHODS),
        several(*METHODS),
        "Which, with commas between.",
        fixed=False,
        metavar="NAME,...",
    )
    dataset: str = same_as("dataset")
    data: str | None = same_as("data")
    limit_train: int | None = same_as("limit_train")
    address: str | None = option(
        None,
        optional(text),
        "Ray cluster: 'auto' (the running one), HOST:PORT, or 'local' (start one here). Without "
        "it, the running one if there is one.",
        fixed=False,
        metavar="WHERE",
    )
    storage: str = same_as("storage")
    storage_timeout: float = same_as("storage_timeout")
    name: str | None = option(
        None,
        optional(run_name),
        "Name of the folder; methods that are finished in it are not trained again. By default "
        "it is named after data set and rows.",
        fixed=False,
        metavar="NAME",
    )


BASELINE_FIELDS = fields_of(BaselineConfig)
