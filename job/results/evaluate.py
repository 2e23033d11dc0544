"""Metrics of a run's best weights on a split of its data set."""

from __future__ import annotations

from typing import Any

import keras

from job.data.catalogue import Dataset
from job.engine.arrays import assign
from job.engine.scoring import score
from job.models import build_model
from job.models.architecture import in_float32, model_of
from job.runs.data import examples_of
from job.runs.run import Run
from job.runs.state import Arrays, RunState
from job.waiting import waiting


def model_with(
    run: Run, weights: Arrays, dataset: Dataset, precision: str | None = None
) -> keras.Model:
    """The run's model for a data set's labels and images, with the given arrays.

    Args:
        run: The run.
        weights: Arrays by path.
        dataset: The data set.
        precision: `float32` instead of what it was trained in.
    """
    precision = precision or run.config.precision
    if run.architecture is not None:
        is_other = precision != run.config.precision
        architecture = in_float32(run.architecture) if is_other else run.architecture
        model = model_of(architecture, run.config.seed)
    else:
        model = build_model(
            run.config.model,
            classes=len(dataset.labels),
            image_shape=dataset.image_shape,
            precision=precision,
        )
    assign(model.weights, weights)
    return model


@waiting("examples to be read and evaluated")
def evaluate(
    run: Run, state: RunState, split: str = "test", data: str | None = None
) -> dict[str, Any]:
    """Evaluates a run's best weights.

    Args:
        run: The run.
        state: Its state, as `verified_best` gives it.
        split: `test`, `validation` or `train`.
        data: Place of the data set, as for training.

    Raises:
        InputError, JobError: As `examples_of`.
    """
    examples = examples_of(run, data)
    if split == "test":
        chosen = examples.test()
    else:
        train, validation = examples.training(run.config.limit_train)
        chosen = train if split == "train" else validation
    model = model_with(run, state.best_weights, examples.dataset)
    scores = score(model, chosen)
    return {
        "run": run.name,
        "model": run.config.model,
        "dataset": examples.dataset.name,
        "split": split,
        "examples": len(chosen),
        "best_epoch": state.best_epoch,
        "loss": scores.loss,
        "accuracy": scores.accuracy,
    }
