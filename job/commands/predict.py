"""`lenet predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from job.config.flags import PLACE, json_option, storage_option, verbose_option


@click.command()
@click.argument("run")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--out",
    type=PLACE,
    metavar="FILE",
    help="Write a table, FILE.parquet, FILE.csv or FILE.json: source, row, prediction, p_LABEL.",
)
@storage_option
@verbose_option
@json_option
def predict(
    run: str,
    images: Sequence[str],
    out: str | None,
    storage: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Tell what PNG or JPEG pictures show, or all those in a folder, with the best weights of RUN.

    Pictures may have any size, dark on light or light on dark. Of a digit the largest drawing is
    judged, without shadows, ruled lines and frames.
    """
    from job.engine.runtime import start_anywhere
    from job.results.predict import describe, pictures_of, read_examples
    from job.results.predictions import check_table, write_table
    from job.runs.data import dataset_of
    from job.runs.run import open_run, verified_best

    if out is not None:
        check_table(out)
    pictures = pictures_of(images)
    opened = open_run(run, storage)
    state = verified_best(opened)
    dataset = dataset_of(opened)
    examples = read_examples(
        pictures,
        dataset.image_shape,
        is_digit=dataset.is_digits,
        inverts=opened.config.dataset != "own",
    )
    start_anywhere(verbose=verbose)
    from job.engine.scoring import predict as predict_images
    from job.results.evaluate import model_with

    model = model_with(opened, state.best_weights, dataset)
    probabilities = predict_images(model, examples)
    if out is not None:
        write_table(out, pictures, probabilities, dataset.labels)
        print(f"{len(pictures):,} predictions are in {out}")
        return
    results = [
        describe(*pair, dataset.labels) for pair in zip(pictures, probabilities, strict=True)
    ]
    if as_json:
        print(json.dumps(results))
        return
    for result in results:
        ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])
        print(f"{result['image']}: {result['prediction']}")
        print("   " + "  ".join(f"{label} {p:.2%}" for label, p in ranked))
