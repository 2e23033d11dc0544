"""Commands that may need Ray: `lenet train`, `lenet baselines` and `lenet doctor`."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from job.baselines.methods import BASELINE_FIELDS
from job.config.config import FIELDS, RECIPES
from job.config.flags import (
    PLACE,
    GroupedCommand,
    config_option,
    json_option,
    on_end_option,
    options_of,
    run_names,
    told,
    verbose_option,
)
from job.config.recipes import OWN
from job.config.resolve import resolve
from job.errors import JobError
from job.waiting import waiting


def recipes_table() -> str:
    """The recipes as help text; its backspace character keeps click from filling the lines."""
    lines = [
        f"  {recipe}, {'your own model' if model == OWN else model}: "
        + ", ".join(f"{k} {v}" for k, v in used.items())
        for recipe, models in RECIPES.items()
        for model, used in models.items()
    ]
    return "\b\nRecipes:\n" + "\n".join(lines)


@click.command(cls=GroupedCommand, epilog=recipes_table())
@options_of(FIELDS)
@config_option
@on_end_option
@click.option("--overwrite", is_flag=True, help="Start anew where a run of that name exists.")
@verbose_option
@json_option
def train(
    config_file: str | None,
    on_end: str | None,
    overwrite: bool,
    verbose: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Train a model, evaluate it on the test set and keep everything in a run folder.

    A run that was interrupted goes on when it is called again with the same --name.
    """
    from cluster.training import train_run
    from job.commands.on_end import on_end as calling
    from job.runs.folder import absolute
    from job.runs.run import RESULT_FILE, prepare_run
    from job.training.progress import training_progress, warnings_to
    from job.training.signals import stop_on_signal

    given, usual = told(options, config_file, FIELDS)
    run = prepare_run(given, usual=usual, overwrite=overwrite)
    run.storage.probe()
    with (
        calling(on_end, run.name, absolute(f"{run.storage.uri}/{RESULT_FILE}")),
        training_progress() as progress,
        warnings_to(progress),
        stop_on_signal(progress) as stop,
    ):
        result = train_run(run, progress, stop, verbose=verbose)
    if as_json:
        print(json.dumps(result))
    else:
        print(summary(result, run.storage.uri))


def summary(result: dict[str, Any], folder: str) -> str:
    """The last lines of a finished run."""
    from job.text import counted, duration

    return "\n".join(
        [
            "",
            f"test accuracy   {result['test_accuracy']:.2%}"
            f"   (before training {result['baseline_accuracy']:.2%})",
            f"validation      {result['val_accuracy']:.2%}, loss {result['val_loss']:.4f},"
            f" best of {counted(result['epochs'], 'epoch')}: {result['best_epoch']}",
            f"training time   {duration(result['train_seconds'])},"
            f" {result['images_per_second']:,.0f} images/s on {result['device']}",
            f"model           {folder}/model.keras   ({result['parameters']:,} parameters)",
            f"pictures        {folder}/figures",
            f"all figures     {folder}/result.json, history.csv, tensorboard/",
        ]
    )


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@options_of(BASELINE_FIELDS)
@click.option("--overwrite", is_flag=True, help="Train methods again that are finished.")
@verbose_option
@json_option
def baselines(
    runs: Sequence[str], overwrite: bool, verbose: bool, as_json: bool, **options: str | None
) -> None:
    """Train nearest neighbours and support vector machines on the split of the nets.

    Validation examples choose their settings, and the test set is read once. Finished RUNs with the
    same training rows are shown in the same table.
    """
    from cluster.tasks import on_cluster
    from job.baselines.study import prepare_study, run_baselines
    from job.baselines.table import print_table, to_document
    from job.training.progress import PlainProgress
    from job.training.signals import stop_on_signal

    given, usual = told(options, None, BASELINE_FIELDS)
    study = prepare_study(given, runs, usual=usual, overwrite=overwrite)
    study.folder.storage.probe()
    progress = PlainProgress()
    with stop_on_signal(progress) as stop:
        workers = functools.partial(on_cluster, study.config.address, verbose=verbose)
        methods = run_baselines(study, progress, stop, workers)
    document = to_document([*methods, *study.beside])
    if as_json:
        print(json.dumps(document))
    else:
        print_table(document)


@click.command()
@click.option(
    "--cluster-file",
    type=PLACE,
    metavar="FILE",
    help="Check a YAML of `ray up`, or a RayJob, before it is started. Nothing else is looked at, "
    "and nothing is sent anywhere, unless another option asks for it.",
)
@click.option(
    "--address",
    metavar="WHERE",
    help="Check the nodes of a Ray cluster: 'auto' (the running one), HOST:PORT, or 'local' "
    "(start one here for it).",
)
@options_of({name: FIELDS[name] for name in ("storage", "dataset", "data", "device")})
@json_option
def doctor(cluster_file: str | None, as_json: bool, **options: str | None) -> None:
    """Look for what would go wrong, before money is spent: one line for each check, with the fix.

    With --address every node of the cluster is checked: versions, code, GPUs, disk, clock, token,
    open ports, data and storage, and how fast the nodes add numbers up with each other. Without
    it, this machine; Ray is not started.
    """
    from cluster.doctor.examine import examine, examine_file, to_document

    given, usual = told(options, None, FIELDS)
    # While a cluster is connected, what is printed to stdout is Ray's and dropped.
    out = sys.stdout
    found = []
    with waiting("the next check") as heard:
        for finding in itertools.chain(
            examine_file(cluster_file) if cluster_file else (),
            # What is usual here asks for nothing.
            examine(resolve({**usual, **given})) if given or not cluster_file else (),
        ):
            heard()
            found.append(finding)
            if not as_json:
                print(finding, file=out, flush=True)
    if as_json:
        print(json.dumps(to_document(found)))
    failed = sum(finding.is_failure for finding in found)
    if failed:
        raise JobError(f"{failed} of {len(found)} checks failed")
