"""What a run leaves in its folder, beside its checkpoints.

    config.json        the settings, and when the run was created
    history.csv        one row an epoch; history.parquet has the same
    tensorboard/       the same as TensorBoard event files, with the settings
    figures/           PNG pictures
    model.keras        the best weights, for plain `keras.models.load_model`
    test_predictions.parquet   what it answered for each test example (job/results/predictions.py)
    README.md          the model card
    result.json        written last: its presence marks a finished run

History files are rewritten from the whole history at each epoch's end, so they are never torn and
a run that was interrupted leaves no double rows.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from job.data.catalogue import Dataset
from job.data.files import Split
from job.results import figures
from job.results.events import FOLDER, Point, event_file, hparams_file
from job.runs.run import Run
from job.runs.state import EpochRow, RunState, best_row, last_rate
from job.storage.base import Storage


def write_history(run: Run, rows: Sequence[EpochRow]) -> None:
    """The finished epochs as CSV, Parquet and TensorBoard events, and these with the settings."""
    storage, config = run.storage, run.config
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows])
    for name, writer in (
        ("history.csv", pyarrow.csv.write_csv),
        ("history.parquet", pyarrow.parquet.write_table),
    ):
        stream = io.BytesIO()
        writer(table, stream)
        storage.write(name, stream.getvalue())
    train, validation, clock = [], [], run.created
    for row in rows:
        clock += row.seconds
        values = {"epoch_loss": row.loss, "epoch_accuracy": row.accuracy}
        pace = {"images_per_second": row.images_per_second, "learning_rate": last_rate(row, config)}
        train.append(Point(row.epoch, clock, {**values, **pace}))
        values = {"epoch_loss": row.val_loss, "epoch_accuracy": row.val_accuracy}
        validation.append(Point(row.epoch, clock, values))
    best = best_row(rows, config.best_by)
    assert best is not None  # it is written at the end of an epoch
    reached = {"best_val_accuracy": best.val_accuracy, "best_val_loss": best.val_loss}
    for part, content in (
        ("train/", event_file(train)),
        ("validation/", event_file(validation)),
        ("", hparams_file(config.hyperparameters(), reached, best.epoch)),
    ):
        storage.write(f"{FOLDER}/{part}events.out.tfevents.{int(run.created)}.lenet", content)


def write_data_figures(run: Storage, train: Split, dataset: Dataset, seed: int) -> None:
    """The first ten training images, and one chosen by the seed with its pixel values."""
    names = [dataset.labels[label] for label in train.labels[:10]]
    run.write("figures/first_ten.png", figures.first_ten(train.images, names))
    index = int(np.random.default_rng(seed).integers(len(train)))
    detail = figures.in_detail(train.images[index], dataset.labels[train.labels[index]])
    run.write("figures/in_detail.png", detail)


def write_result_figures(
    run: Storage, state: RunState, test: Split, probabilities: np.ndarray, dataset: Dataset
) -> None:
    """History, confusion matrix and worst mistakes of a finished run."""
    run.write("figures/history.png", figures.history(state.history, state.best_epoch))
    matrix = confusion_matrix(test.labels, probabilities.argmax(axis=1), len(dataset.labels))
    run.write("figures/confusion.png", figures.confusion(matrix, dataset.labels))
    worst = figures.worst_mistakes(test.images, test.labels, probabilities, dataset.labels)
    if worst:
        run.write("figures/worst_mistakes.png", worst)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 (classes, classes), true label by predicted label."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


# What later versions of Keras write though it says nothing, and earlier ones refuse.
SAYS_NOTHING = {"quantization_config": None, "optional": False}


def keras_file(model: keras.Model) -> bytes:
    """A model as the bytes of a `.keras` file, which Keras reads from 3.0 on."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.keras"
        model.save(path)
        stream = io.BytesIO()
        with zipfile.ZipFile(path) as written, zipfile.ZipFile(stream, "w") as kept:
            for entry in written.infolist():
                content = written.read(entry)
                if entry.filename == "config.json":
                    content = json.dumps(for_any_version(json.loads(content))).encode()
                kept.writestr(entry, content)
        return stream.getvalue()


def for_any_version(config: Any) -> Any:
    """A model's configuration without what only later versions of Keras know.

    A policy of types is its name; of an initializer, which a trained model has no use for, and of a
    layer what is not set is left out.
    """
    if isinstance(config, list):
        return [for_any_version(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config["config"]["name"]
    plain = {
        key: for_any_version(value)
        for key, value in config.items()
        if not (key in SAYS_NOTHING and value == SAYS_NOTHING[key])
    }
    if config.get("module") == "keras.initializers":
        plain["config"] = {k: v for k, v in plain["config"].items() if v is not None}
    return plain
