"""Metrics of a run's best weights on a split of its data set."""

from __future__ import annotations

from typing import Any

import keras

from job.datasets import CATALOGUE, test_split, training_splits
from job.download import obtain
from job.engine import assign, score
from job.models import build_model
from job.runs import Run
from job.state import Arrays, RunState


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


def evaluate(
    run: Run, state: RunState, split: str = "test", data: str | None = None
) -> dict[str, Any]:
    """Evaluates a run's best weights.

    Args:
        run: The run.
        state: Its state, as `verified_best` gives it.
        split: `test`, `validation` or `train`.
        data: Folder of the data set, as for training.

    Raises:
        InputError, JobError: As `obtain`.
    """
    dataset = CATALOGUE[run.config.dataset]
    contents = obtain(run.config.dataset, data or run.config.data)
    if split == "test":
        examples = test_split(contents, dataset)
    else:
        train, validation = training_splits(contents, dataset, run.config.limit_train)
        examples = train if split == "train" else validation
    scores = score(model_with(run, state.best_weights), examples)
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
