"""The end of a run: the test set, read once, and `result.json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from job.data.examples import Examples
from job.engine.arrays import assign
from job.engine.scoring import Scorer
from job.engine.twin import noise_by_worker
from job.results import artifacts
from job.results.card import CARD_FILE, model_card
from job.results.evaluate import model_with
from job.results.predictions import Predictions, write_predictions
from job.runs.run import REACHED_FILE, RESULT_FILE, Reached, Run
from job.runs.state import RunState, sha256_of
from job.storage.documents import to_json
from job.versions import versions
from job.waiting import waiting

MODEL_FILE = "model.keras"


@waiting("the test set to be evaluated and drawn")
def finish(
    run: Run,
    state: RunState,
    initial: RunState,
    reached: Reached,
    examples: Examples,
    device: str,
    workers: int,
) -> dict[str, Any]:
    """Reads the test set, once, and writes what a finished run leaves; `result.json` last.

    Raises:
        SupersededError: Another attempt trains this run; nothing of it was overwritten.
    """
    run.checkpoints.check()
    config, dataset = run.config, examples.dataset
    artifacts.write_history(run, state.history)
    test = examples.test()
    model = model_with(run, initial.weights, dataset)
    scorer = Scorer(model)
    baseline = scorer(test)
    assign(model.weights, state.best_weights)
    # Compiled by now, so that its time is that of predicting.
    scores = scorer(test)
    train, _ = examples.training(config.limit_train)
    artifacts.write_data_figures(run.storage, train, dataset, config.seed)
    write_predictions(run.storage, Predictions(test.labels, scores.probabilities.argmax(axis=1)))
    artifacts.write_result_figures(run.storage, state, test, scores.probabilities, dataset)
    run.storage.write(MODEL_FILE, artifacts.keras_file(model))
    seconds = sum(row.seconds for row in state.history)
    images = sum(row.seconds * row.images_per_second for row in state.history)
    best = state.best
    assert best is not None  # a finished run has an epoch at least
    result = {
        "name": config.name,
        "model": config.model,
        "dataset": dataset.name,
        "data": examples.description,
        "recipe": config.recipe,
        "parameters": model.count_params(),
        "baseline_accuracy": baseline.accuracy,
        "epochs": len(state.history),
        "best_epoch": state.best_epoch,
        "val_loss": best.val_loss,
        "val_accuracy": best.val_accuracy,
        "test_loss": scores.loss,
        "test_accuracy": scores.accuracy,
        "train_seconds": seconds,
        "test_seconds": scores.seconds,
        "images_per_second": images / seconds,
        "workers": workers,
        "restarts": reached.restarts,
        "lost_steps": reached.lost_steps,
        "device": device,
        "devices": [dataclasses.asdict(one) for one in reached.devices],
        "accelerator": reached.devices[-1].accelerator if reached.devices else None,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "schedule": config.schedule,
        **{name: value for name, value in config.to_dict().items() if name.startswith("augment_")},
        "precision": config.precision,
        "noise_by_worker": noise_by_worker(model),
        "own_parts": run.architecture.own_parts if run.architecture else [],
        "weights_sha256": sha256_of(state.weights.values()),
        "best_weights_sha256": sha256_of(state.best_weights.values()),
        "versions": versions(),
    }
    card = model_card(config, result, examples, model.input_shape[1:], {"keras": MODEL_FILE})
    run.checkpoints.check()
    run.storage.write(CARD_FILE, card)
    run.storage.write(RESULT_FILE, to_json(result))
    # Not before: a run that is cut off here must not forget what its interruptions cost.
    run.storage.delete(REACHED_FILE)
    return result
