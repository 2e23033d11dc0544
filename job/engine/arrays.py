"""Variables as arrays by path: what checkpoints hold, and what goes from one engine to another."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

Arrays = dict[str, np.ndarray]


def handle_of(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """A variable's resource on this worker, for operations that change it in place."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def to_arrays(variables: list[keras.Variable]) -> Arrays:
    """Copies of variables by path, in their order."""
    return {variable.path: np.asarray(variable.numpy()) for variable in variables}


def assign(variables: list[keras.Variable], arrays: Arrays) -> None:
    """Sets variables from arrays by path. Raises ValueError where they don't fit each other."""
    wanted = {v.path: (tuple(v.shape), v.dtype) for v in variables}
    given = {path: (array.shape, str(array.dtype)) for path, array in arrays.items()}
    if wanted != given:
        different = sorted(k for k in wanted.keys() | given.keys() if wanted.get(k) != given.get(k))
        raise ValueError(f"arrays don't fit the model: {', '.join(different)}")
    for variable in variables:
        variable.assign(arrays[variable.path])
