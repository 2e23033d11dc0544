"""Weights to begin with: another run's best, or those of a `.keras` file. They are kept with a run.

So a run that was interrupted before its first checkpoint begins with the same ones again, whatever
became of where they were taken from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import safetensors
import safetensors.numpy

from job.errors import InputError, JobError
from job.runs.state import Arrays
from job.storage.base import Storage

START_FILE = "start.safetensors"
FLAG = "--start-from"
MOST_BYTES = 1 << 33


def to_bytes(arrays: Arrays) -> bytes:
    """Arrays by variable path as they are kept: no pickle, nothing that runs on reading."""
    return safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in arrays.items()})


def kept_start(folder: Storage, sha256: str | None) -> Arrays:
    """What a run begins with; nothing where it begins with fresh weights.

    Raises:
        JobError: It is missing, or another one.
    """
    if sha256 is None:
        return {}
    where = f"{folder.uri}/{START_FILE}"
    try:
        content = folder.read(START_FILE, limit=MOST_BYTES)
    except FileNotFoundError:
        raise JobError(f"{where} is missing") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise JobError(f"{where} is not what this run was started with (SHA-256 differs)")
    try:
        return safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise JobError(f"{where} can't be read: {error}") from error


def fitting(given: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Those of the arrays that a model has a place for, by its path: of like name and shape."""
    names, known = _names(shapes), {name: path for path, name in _names(given).items()}
    places = {path: known.get(name, "") for path, name in names.items()}
    return {
        path: given[place]
        for path, place in places.items()
        if place in given and given[place].shape == shapes[path]
    }


def check_fits(given: Arrays, shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
    """Raises InputError where a model has no place for any of the arrays."""
    if not fitting(given, shapes):
        raise InputError(
            FLAG,
            place,
            f"none of its arrays ({_some(given)}) has the name and shape of one of the model's "
            f"({_some(shapes)}); give layers the same names, or begin with fresh weights",
        )


def begun_with(fresh: Arrays, given: Arrays) -> tuple[Arrays, str]:
    """A model's arrays with what was given in place, and what was taken in one line."""
    shapes = {path: array.shape for path, array in fresh.items()}
    taken = fitting(given, shapes)
    left = [path for path in fresh if path not in taken]
    said = f"began with {len(taken)} of {len(fresh)} arrays as given"
    arrays = {
        path: taken[path].astype(array.dtype) if path in taken else array
        for path, array in fresh.items()
    }
    return arrays, said + (f"; fresh: {', '.join(left)}" if left else "")


def _names(paths: Iterable[str]) -> dict[str, str]:
    """Paths without the name of a Sequential model, which a file of Keras does not give back."""
    split = {path: path.split("/") for path in paths}
    is_within_one = len({first for first, *_ in split.values()}) == 1
    is_named = is_within_one and all(len(parts) > 2 for parts in split.values())
    return {path: "/".join(parts[is_named:]) for path, parts in split.items()}


def _some(paths: Iterable[str], count: int = 3) -> str:
    names = list(paths)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
