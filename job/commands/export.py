"""`lenet export`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from job.config.flags import (
    PLACE,
    data_option,
    json_option,
    model_option,
    run_names,
    storage_option,
    verbose_option,
)
from job.errors import InputError
from job.results.export_formats import FORMATS


@click.command()
@click.argument("run", shell_complete=run_names)
@storage_option
@click.option(
    "--format",
    "names",
    type=click.Choice(list(FORMATS)),
    multiple=True,
    help="A format; may be given several times.  [all]",
)
@click.option("--out", type=PLACE, metavar="FOLDER", help="The folder to make.  [export-RUN]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export there.")
@data_option
@model_option
@verbose_option
@json_option
def export(
    run: str,
    storage: str,
    names: Sequence[str],
    out: str | None,
    overwrite: bool,
    data: str | None,
    model: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Write the model of RUN, which has finished, for other programs.

    The folder holds a SavedModel for TensorFlow, LiteRT for phones, ONNX for everything else, and
    the model card.
    Each file is read back and must predict what the Keras model does for every picture of the test
    set; the labels of the test set are not looked at. What differs is not kept.
    """
    from job.results.export import Comparison, export_run
    from job.runs.run import find_run

    opened = find_run(run, storage).with_source(model)
    place = f"export-{opened.name}" if out is None else out
    if "://" in place:
        raise InputError("--out", place, "an export is written to disk; name a folder")
    # Made absolute, so that `.` and `..` have a name and a folder above them.
    target = Path(os.path.realpath(place))
    document = export_run(
        opened,
        list(dict.fromkeys(names)) or list(FORMATS),
        target,
        data=data,
        overwrite=overwrite,
        verbose=verbose,
    )
    if as_json:
        print(json.dumps(document))
        return
    for found in document["formats"].values():
        print(f"{Path(place, found.pop('path'))}: {Comparison(**found)}")
    if document["trained_in"] != "float32":
        print(f"trained in {document['trained_in']}, exported and compared in float32")
