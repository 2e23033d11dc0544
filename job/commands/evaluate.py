"""`lenet evaluate`."""

from __future__ import annotations

import json

import click

from job.config.flags import (
    data_option,
    json_option,
    model_option,
    run_names,
    storage_option,
    verbose_option,
)


@click.command()
@click.argument("run", shell_complete=run_names)
@storage_option
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which examples.",
)
@data_option
@model_option
@verbose_option
@json_option
def evaluate(
    run: str,
    storage: str,
    split: str,
    data: str | None,
    model: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Evaluate the best weights of RUN (a name, or the path of a run folder)."""
    from job.engine.runtime import start_anywhere
    from job.runs.run import find_run, verified_best

    opened = find_run(run, storage).with_source(model)
    state = verified_best(opened)
    start_anywhere(verbose=verbose)
    from job.results.evaluate import evaluate as evaluate_run

    result = evaluate_run(opened, state, split, data)
    print(
        json.dumps(result)
        if as_json
        else f"{result['run']}: {split} accuracy {result['accuracy']:.2%}, "
        f"loss {result['loss']:.4f} ({result['examples']:,} examples, "
        f"weights of epoch {result['best_epoch']})"
    )
