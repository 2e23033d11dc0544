"""`lenet predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from job.config.flags import (
    PLACE,
    json_option,
    model_option,
    run_names,
    storage_option,
    verbose_option,
)


@click.command()
@click.argument("run", shell_complete=run_names)
@click.argument(
    "inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=PLACE.shell_complete
)
@click.option(
    "--out",
    type=PLACE,
    metavar="FILE",
    help="Write a table, FILE.parquet, FILE.csv or FILE.json: source, row, prediction, p_LABEL.",
)
@storage_option
@model_option
@verbose_option
@json_option
def predict(
    run: str,
    inputs: Sequence[str],
    out: str | None,
    storage: str,
    model: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Tell what PNG or JPEG pictures show, with the best weights of RUN.

    An INPUT is a picture, a folder of them, CSV of pixels, or Parquet with a column image. Pictures
    may have any size, dark on light or light on dark. Of a digit the largest drawing is judged,
    without shadows, ruled lines and frames. For a data set of your own only their size changes.
    """
    from job.data.catalogue import CATALOGUE
    from job.engine.runtime import start_anywhere
    from job.results.predict import Form, describe, read_examples
    from job.results.predictions import check_table, write_table
    from job.runs.data import dataset_of
    from job.runs.run import find_run, verified_best

    if out is not None:
        check_table(out)
    opened = find_run(run, storage).with_source(model)
    state = verified_best(opened)
    dataset = dataset_of(opened)
    form = Form(dataset.image_shape, dataset.is_digits, opened.config.dataset not in CATALOGUE)
    sources, images = read_examples(inputs, form)
    start_anywhere(verbose=verbose)
    from job.engine.scoring import predict as predict_images
    from job.results.evaluate import model_with

    net = model_with(opened, state.best_weights, dataset)
    probabilities = predict_images(net, images)
    if out is not None:
        write_table(out, sources, probabilities, dataset.labels)
        written = {"out": out, "predictions": len(sources)}
        print(json.dumps(written) if as_json else f"{len(sources):,} predictions are in {out}")
        return
    results = [describe(*pair, dataset.labels) for pair in zip(sources, probabilities, strict=True)]
    if as_json:
        print(json.dumps(results))
        return
    for result in results:
        ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])
        print(f"{result['image']}: {result['prediction']}")
        print("   " + "  ".join(f"{label} {p:.2%}" for label, p in ranked))
