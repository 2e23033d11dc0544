"""`lenet predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from job.config.flags import json_option, storage_option, verbose_option


@click.command()
@click.argument("run")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@storage_option
@verbose_option
@json_option
def predict(run: str, images: Sequence[str], storage: str, verbose: bool, as_json: bool) -> None:
    """Tell what PNG or JPEG pictures show, with the best weights of RUN.

    Pictures may have any size, dark on light or light on dark. Of a digit the largest drawing is
    judged, without shadows, ruled lines and frames.
    """
    from job.engine.runtime import start_anywhere
    from job.results.predict import describe, read_examples
    from job.runs.data import dataset_of
    from job.runs.run import open_run, verified_best

    opened = open_run(run, storage)
    state = verified_best(opened)
    dataset = dataset_of(opened)
    examples = read_examples(
        list(images),
        dataset.image_shape,
        is_digit=dataset.is_digits,
        inverts=opened.config.dataset != "own",
    )
    start_anywhere(verbose=verbose)
    from job.engine.scoring import predict as predict_images
    from job.results.evaluate import model_with

    model = model_with(opened, state.best_weights, dataset)
    probabilities = predict_images(model, examples)
    results = [describe(*pair, dataset.labels) for pair in zip(images, probabilities, strict=True)]
    if as_json:
        print(json.dumps(results))
        return
    for result in results:
        ranked = sorted(result["probabilities"].items(), key=lambda item: -item[1])
        print(f"{result['image']}: {result['prediction']}")
        print("   " + "  ".join(f"{label} {p:.2%}" for label, p in ranked))
