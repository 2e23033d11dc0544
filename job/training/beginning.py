"""What a new run begins with beside its settings, looked at before anything is written."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import safetensors.numpy

from job.config.config import TrainConfig
from job.data.catalogue import Dataset
from job.errors import InputError
from job.models.architecture import Architecture, model_of, own_objects
from job.runs.run import Run, find_run, verified_best
from job.runs.start import FLAG, check_fits
from job.runs.state import Arrays
from job.training.apart import Answer, EndedError, apart

KERAS_FILE = ".keras"


def with_start(run: Run, dataset: Dataset) -> Run:
    """A new run with the weights that it begins with.

    Raises:
        InputError: They can't be read, the model has no place for any of them, or `--freeze` names
            no array of it.
    """
    if run.begun_with is not None:
        return run
    given = start_of(run.config, run.architecture, dataset)
    return run if given is None else run.with_start(given)


def start_of(
    config: TrainConfig, architecture: Architecture | None, dataset: Dataset
) -> Arrays | None:
    """The weights that `--start-from` names, None without it; looks at `--freeze` as well.

    Args:
        config: The settings of a run, or those that a sweep's runs share.
        architecture: Of the user's own model; None for a built-in one.
        dataset: What it is trained on.

    Raises:
        InputError: As `with_start`.
    """
    if config.start_from is None and config.freeze is None:
        return None
    place = config.start_from or ""
    given: Arrays = {}
    if place and not place.endswith(KERAS_FILE):
        given = dict(verified_best(find_run(place, config.storage, field=FLAG)).best_weights)
    with tempfile.TemporaryDirectory(prefix="lenet-start-") as folder:
        kept = Path(folder) / "weights.safetensors"
        asked = {
            "config": {"model": config.model, "precision": config.precision},
            "architecture": dataclasses.asdict(architecture) if architecture else None,
            "classes": len(dataset.labels),
            "image_shape": dataset.image_shape,
            "file": place if place.endswith(KERAS_FILE) else None,
            "out": str(kept),
            "freeze": config.freeze,
        }
        try:
            said = apart(looked_at_apart, asked, "the model that is to be trained further")
        except EndedError as how:
            raise InputError(FLAG, place, f"ended the process that read it ({how})") from None
        if "problem" in said:
            raise InputError(said["flag"], getattr(config, said["field"]), said["problem"])
        if kept.exists():
            given = safetensors.numpy.load_file(kept)
    if not place:
        return None
    check_fits(given, {path: tuple(shape) for path, shape in said["shapes"].items()}, place)
    return given


def looked_at_apart(asked: Answer) -> Answer:
    """The other process' part: a model's paths and shapes; writes what is in a `.keras` file."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow(device="cpu")
    import keras

    from job.engine.arrays import to_arrays
    from job.engine.engine import freeze
    from job.models import build_model

    classes, shape = asked["classes"], tuple(asked["image_shape"])
    kept = asked["architecture"]
    architecture = None if kept is None else Architecture.from_dict(kept)
    if architecture:
        model = model_of(architecture, seed=1)
    else:
        name, precision = asked["config"]["model"], asked["config"]["precision"]
        model = build_model(name, classes=classes, image_shape=shape, precision=precision)
    if asked["file"]:
        try:
            loaded = keras.models.load_model(
                asked["file"],
                custom_objects=own_objects(architecture),
                compile=False,
                safe_mode=True,
            )
        except Exception as error:  # the user's own layers raise what they like
            why = " ".join(str(error).split())[:300]
            return {"flag": FLAG, "field": "start_from", "problem": f"can't be read: {why}"}
        safetensors.numpy.save_file(to_arrays(loaded.weights), asked["out"])
    try:
        freeze(model, asked["freeze"])
    except InputError as refused:
        return {"flag": refused.field, "field": "freeze", "problem": refused.problem}
    return {"shapes": {variable.path: list(variable.shape) for variable in model.weights}}
