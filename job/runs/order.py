"""Which runs of a list are shown, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from job.config.config import FIELDS
from job.config.fields import choice, lenient
from job.errors import InputError, nearest

if TYPE_CHECKING:
    from job.runs.listing import Listed

STATES = ("finished", "training", "stopped", "unreadable")
# What a list is sorted by, and whether the greatest comes first.
COLUMNS = {
    **{"name": False, "model": False, "dataset": False, "state": False, "age": False},
    **{"epochs": True, "val_accuracy": True, "test_accuracy": True, "size": True},
}


def in_order(runs: Sequence[Listed], column: str) -> list[Listed]:
    """The runs by one of `COLUMNS`; what is not known comes last."""
    known = [run for run in runs if getattr(run, column) is not None]
    unknown = [run for run in runs if getattr(run, column) is None]
    return sorted(known, key=lambda run: getattr(run, column), reverse=COLUMNS[column]) + unknown


def matching(runs: Sequence[Listed], wanted: Sequence[tuple[str, Any]]) -> list[Listed]:
    """The runs that have each of these values in a column or a setting, as `condition` gives it."""
    return [run for run in runs if all(_has(run, name, value) for name, value in wanted)]


def condition(one: str) -> tuple[str, Any]:
    """FIELD=VALUE as runs have it: `1e-3` is 0.001, nothing is None.

    Raises:
        InputError: It names no column and no setting, or no value of it.
    """
    field, sign, word = one.partition("=")
    name = field.replace("-", "_")
    if not sign or name not in (*COLUMNS, *FIELDS):
        raise InputError(
            "--filter",
            one,
            "give FIELD=VALUE, such as state=finished or batch-size=64"
            f"{nearest(name, (*COLUMNS, *FIELDS))}",
        )
    parse = FIELDS[name].metadata["parse"] if name in FIELDS else str
    if name == "state":
        parse = choice(*STATES)
    try:
        return name, lenient(parse)(word) if word else None
    except ValueError as problem:
        raise InputError("--filter", one, str(problem)) from None


def _has(listed: Listed, name: str, value: Any) -> bool:
    if name in COLUMNS:
        found = getattr(listed, name)
        return found == value if name in FIELDS or found is None else str(found) == value
    return listed.run is not None and getattr(listed.run.config, name) == value
