"""Metrics of a run's best weights on a split of its data set."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from job.datasets import CATALOGUE, test_split, training_splits
from job.download import obtain
from job.engine import assign, cross_entropy, predict
from job.models import build_model
from job.runs import Run, verified_best
from job.state import Arrays


class Scores(NamedTuple):
    """Mean cross-entropy and accuracy over a split."""

    loss: float
    accuracy: float


def model_with(run: Run, weights: Arrays) -> keras.Model:
    """The run's model, built in code, with the given arrays."""
    config = run.config
    model = build_model(
        config.model,
        classes=len(CATALOGUE[config.dataset].labels),
        precision=config.precision,
    )
    assign(model.weights, weights)
    return model


def score(labels: np.ndarray, probabilities: np.ndarray) -> Scores:
    """Scores predictions (n, classes) against labels (n,)."""
    losses = np.asarray(cross_entropy(labels, probabilities), np.float64)
    return Scores(float(losses.mean()), float((probabilities.argmax(axis=1) == labels).mean()))


def evaluate(run: Run, split: str = "test", data: str | None = None) -> dict[str, Any]:
    """Evaluates a run's best weights.

    Args:
        run: A run with at least one finished epoch.
        split: `test`, `validation` or `train`.
        data: Folder of the data set, as for training.

    Raises:
        InputError, JobError: As `verified_best` and `obtain`.
    """
    state = verified_best(run)
    dataset = CATALOGUE[run.config.dataset]
    contents = obtain(run.config.dataset, data or run.config.data)
    if split == "test":
        examples = test_split(contents, dataset)
    else:
        train, validation = training_splits(contents, dataset, run.config.limit_train)
        examples = train if split == "train" else validation
    scores = score(examples.labels, predict(model_with(run, state.best_weights), examples.images))
    return {
        "run": run.config.name,
        "model": run.config.model,
        "dataset": run.config.dataset,
        "split": split,
        "examples": len(examples),
        "best_epoch": state.best_epoch,
        "loss": scores.loss,
        "accuracy": scores.accuracy,
    }
