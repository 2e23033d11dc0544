"""One classical method from data to result: `train_and_test`.

A method is chosen, trained and tested like a net: validation examples decide between its settings,
and the test examples are read once, at the end. scikit-learn, which takes a second to import, is
imported where it is needed.
"""

from __future__ import annotations

import importlib.metadata
import time
from typing import Any, NamedTuple

import numpy as np

from job.baselines.learners import Preparation, learner_of
from job.baselines.methods import METHODS, Method
from job.data.examples import Examples
from job.data.files import Split
from job.engine.runtime import hardware
from job.errors import InputError
from job.results.predictions import Predictions
from job.versions import versions


class Outcome(NamedTuple):
    """What came of a method: its `result.json`, and its answers to the test examples."""

    result: dict[str, Any]
    predictions: Predictions


def train_and_test(task: tuple[Examples, int | None], name: str) -> Outcome:
    """Chooses a method's settings, trains it and tests it, on one processor.

    Args:
        task: A data set, and how many of its training rows to use (None: all).
        name: A key of `METHODS`.

    Raises:
        InputError: The training rows are not enough.
    """
    from threadpoolctl import threadpool_limits

    examples, limit_train = task
    train, validation = examples.training(limit_train)
    check_trainable(train)
    # What is imported while the clock runs would count as training.
    import scipy.ndimage  # noqa: F401
    import sklearn.decomposition
    import sklearn.neighbors
    import sklearn.svm  # noqa: F401

    with threadpool_limits(1):
        return _train_and_test(METHODS[name], train, validation, examples)


def check_trainable(train: Split) -> None:
    """Raises InputError where there is nothing to tell apart."""
    if len(np.unique(train.labels)) < 2:
        raise InputError("--limit-train", len(train), "these rows all have one label; give more")


class Clock:
    """Seconds between one call of `lap` and the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call, at first since the clock was made."""
        last, self._last = self._last, time.perf_counter()
        return self._last - last


def _train_and_test(method: Method, train: Split, validation: Split, examples: Examples) -> Outcome:
    clock = Clock()
    prepare, rows = Preparation.fit(method.features, method.components, train.images)
    train_seconds = clock.lap()
    asked = prepare(validation.images)
    learner = learner_of(method)
    tried = learner.search(method.candidates, rows, train.labels, asked, validation.labels)
    chosen, _ = max(tried, key=lambda pair: pair[1])
    search_seconds = clock.lap()
    predict = learner.fit(chosen, rows, train.labels)
    train_seconds += clock.lap()
    val_accuracy = float((predict(asked) == validation.labels).mean())
    test = examples.test()
    clock.lap()
    predictions = Predictions(test.labels, predict(prepare(test.images)))
    test_seconds = clock.lap()
    result = {
        "model": method.name,
        "dataset": examples.dataset.name,
        "features": method.features,
        "components": method.components,
        "settings": chosen,
        "candidates": [{**settings, "val_accuracy": found} for settings, found in tried],
        "train_rows": len(train),
        "val_accuracy": val_accuracy,
        "test_accuracy": predictions.accuracy,
        "train_seconds": train_seconds,
        "search_seconds": search_seconds,
        "test_seconds": test_seconds,
        "device": hardware("cpu", threads=1),
        "versions": {
            **versions(),
            **{name: importlib.metadata.version(name) for name in ("scikit-learn", "scipy")},
        },
    }
    return Outcome(result, predictions)
