"""The `lenet` command. Options of `lenet train` are the fields of `TrainConfig`.

Nothing here imports TensorFlow before it is needed: help and errors come at once.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

import click

from job.commands.export import export
from job.config.config import FIELDS, RECIPES, resolve
from job.config.flags import json_option, options_of, storage_option, verbose_option
from job.errors import InputError, Interrupted, JobError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=HELP)
@click.version_option(package_name="lenet-on-ray")
def cli() -> None:
    """Train LeNet5, AlexNet and a feed-forward net on small images, alone or on a Ray cluster.

    Start with `lenet train`: it gets the data, trains, evaluates and says where things are.
    """


def recipes_table() -> str:
    """The recipes as help text; `\b` keeps click from filling the lines."""
    lines = [
        f"  {recipe}, {model}: " + ", ".join(f"{k} {v}" for k, v in used.items())
        for recipe, models in RECIPES.items()
        for model, used in models.items()
    ]
    return "\b\nRecipes:\n" + "\n".join(lines)


@cli.command(epilog=recipes_table())
@options_of(FIELDS)
@click.option("--overwrite", is_flag=True, help="Start anew where a run of that name exists.")
@verbose_option
@json_option
def train(overwrite: bool, verbose: bool, as_json: bool, **options: str | None) -> None:
    """Train a model, evaluate it on the test set and keep everything in a run folder.

    A run that was interrupted goes on when it is called again with the same --name.
    """
    from job.engine.accelerator import is_expected, least_capability
    from job.runs.run import settle
    from job.train import Alone, begun, train_and_evaluate
    from job.training.progress import training_progress, warnings_to
    from job.training.signals import stop_on_signal

    given = {name: value for name, value in options.items() if value is not None}
    run = settle(given, overwrite=overwrite)
    run.storage.probe()
    with (
        training_progress() as progress,
        warnings_to(progress),
        stop_on_signal(progress) as stop,
    ):
        if run.config.worker_limits == (1, 1) and run.config.address is None:
            if is_expected(run.config.device, None):
                run = run.launched("gpu", least_capability())
            else:
                run = run.launched("cpu")
            with begun(run, progress):
                result = train_and_evaluate(run, progress, Alone(stop), verbose=verbose)
        else:
            from cluster.workers.launch import launch

            result = launch(run, progress, stop_requested=stop, verbose=verbose)
    if as_json:
        print(json.dumps(result))
    else:
        print(summary(result, run.storage.uri))


def summary(result: dict[str, Any], folder: str) -> str:
    """The last lines of a finished run."""
    from job.text import duration

    return "\n".join(
        [
            "",
            f"test accuracy   {result['test_accuracy']:.2%}"
            f"   (before training {result['baseline_accuracy']:.2%})",
            f"validation      {result['val_accuracy']:.2%}, loss {result['val_loss']:.4f},"
            f" best of {result['epochs']} epochs: {result['best_epoch']}",
            f"training time   {duration(result['train_seconds'])},"
            f" {result['images_per_second']:,.0f} images/s on {result['device']}",
            f"model           {folder}/model.keras   ({result['parameters']:,} parameters)",
            f"pictures        {folder}/figures",
            f"all figures     {folder}/result.json, history.csv, tensorboard/",
        ]
    )


@cli.command()
@click.argument("run")
@storage_option
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which examples.",
)
@click.option("--data", metavar="PLACE", help="Where the data set is, as for training.")
@verbose_option
@json_option
def evaluate(
    run: str, storage: str, split: str, data: str | None, verbose: bool, as_json: bool
) -> None:
    """Evaluate the best weights of RUN (a name, or the path of a run folder)."""
    from job.runs.run import open_run, verified_best

    opened = open_run(run, storage)
    state = verified_best(opened)
    _start(verbose)
    from job.results.evaluate import evaluate as evaluate_run

    result = evaluate_run(opened, state, split, data)
    print(
        json.dumps(result)
        if as_json
        else f"{result['run']}: {split} accuracy {result['accuracy']:.2%}, "
        f"loss {result['loss']:.4f} ({result['examples']:,} examples, "
        f"weights of epoch {result['best_epoch']})"
    )


@cli.command()
@click.argument("run")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@storage_option
@verbose_option
@json_option
def predict(run: str, images: Sequence[str], storage: str, verbose: bool, as_json: bool) -> None:
    """Tell what PNG or JPEG pictures show, with the best weights of RUN.

    Pictures may have any size, dark on light or light on dark.
    """
    from job.results.predict import describe, read_examples
    from job.runs.data import dataset_of
    from job.runs.run import open_run, verified_best

    opened = open_run(run, storage)
    state = verified_best(opened)
    dataset = dataset_of(opened)
    examples = read_examples(list(images), dataset.image_shape, is_digit=dataset.is_digits)
    _start(verbose)
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


@cli.command()
@click.argument(
    "action", type=click.Choice(["show", "verify", "download", "stage"]), default="show"
)
@click.argument("names", metavar="[DEST] [DATASET]...", nargs=-1)
@click.option("--data", metavar="PLACE", help="Look there instead of in the cache.")
def data(action: str, names: Sequence[str], data: str | None) -> None:
    """Show, verify, download or stage the data sets (those named, or MNIST and Fashion-MNIST).

    show lists what is cached, of all sets; verify checks every byte against the published SHA-256;
    download fetches what is missing; stage writes Parquet to DEST, a folder or s3://BUCKET/PREFIX,
    from which `lenet train --data DEST/DATASET` reads.
    """
    from job.data.catalogue import CATALOGUE, SMALL, test_split, training_splits
    from job.data.sources import cached, obtain
    from job.errors import nearest

    if action == "stage":
        if not names:
            raise InputError("DEST", None, "say where to: a folder or s3://BUCKET/PREFIX")
        destination, *names = names
    for name in names:
        if name not in CATALOGUE:
            choices = ", ".join(CATALOGUE)
            raise InputError("DATASET", name, f"choose one of {choices}{nearest(name, CATALOGUE)}")
    if action == "stage":
        from job.data.examples import stage

        for name, place in stage(destination, names or SMALL, data):
            print(f"{name}: {place}")
        return
    missing = []
    for name in names or (CATALOGUE if action == "show" else SMALL):
        dataset = CATALOGUE[name]
        if action == "download":
            obtain(name, data)
        found = cached(name, data)
        print(f"{name}: {found.place}" + ("" if found.contents else f" ({found.problem})"))
        if found.contents is None:
            missing.append(name)
            continue
        train, validation = training_splits(found.contents, dataset)
        test = test_split(found.contents, dataset)
        print(f"   {len(train):,} training, {len(validation):,} validation, {len(test):,} test")
        print("   first ten labels: " + ", ".join(dataset.labels[i] for i in train.labels[:10]))
        if action == "verify":
            for file in dataset.files:
                print(f"   ok {file.sha256} {file.name}")
    if action == "verify" and missing:
        raise JobError(f"not verified: {', '.join(missing)}; `lenet data download` fetches them")


@cli.command()
@click.argument("run", required=False)
@storage_option
@click.option(
    "--pin", type=int, metavar="STEP", help="Keep RUN's checkpoint of this step for good."
)
@click.option("--unpin", type=int, metavar="STEP", help="No longer keep it.")
@click.option("--clean", is_flag=True, help="Remove what crashed attempts left; asks first.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def runs(
    run: str | None,
    storage: str,
    pin: int | None,
    unpin: int | None,
    clean: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List the runs kept in a place, or show RUN with its checkpoints."""
    from job.runs import listing
    from job.runs import table as show

    if run is None and (pin is not None or unpin is not None):
        raise InputError("RUN", None, "name the run whose checkpoint is meant")
    found = listing.list_runs(storage, only=run)
    if run is not None and not found:
        raise InputError("RUN", run, f"no such run in {storage}; `lenet runs` lists them")
    for step, pinned in ((pin, True), (unpin, False)):
        if step is not None:
            listing.pin(found[0], step, pinned)
    if clean:
        _clean(found, yes)
    elif as_json:
        print(json.dumps(show.as_documents(found, detail=run is not None)))
    else:
        show.print_runs(storage, found, detail=run is not None)


def _clean(found: Sequence[Any], yes: bool) -> None:
    from job.runs import listing
    from job.storage.base import Held

    left = listing.orphans(found)
    for run, folders in left:
        print(f"{run.name}: {', '.join(folders)}")
    if not left:
        print("nothing to remove")
    elif yes or click.confirm("Remove these unfinished checkpoints?"):
        for run, _ in left:
            try:
                listing.remove_orphans(run)
            except Held as holder:
                raise JobError(f"{run.name}: {holder} trains this run; it was left") from holder


@cli.command()
@click.option(
    "--cluster-file",
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

    given = {name: value for name, value in options.items() if value is not None}
    # While a cluster is connected, what is printed to stdout is Ray's and dropped.
    out = sys.stdout
    found = []
    for finding in itertools.chain(
        examine_file(cluster_file) if cluster_file else (),
        examine(resolve(given)) if given or not cluster_file else (),
    ):
        found.append(finding)
        if not as_json:
            print(finding, file=out, flush=True)
    if as_json:
        print(json.dumps(to_document(found)))
    failed = sum(finding.is_failure for finding in found)
    if failed:
        raise JobError(f"{failed} of {len(found)} checks failed")


@cli.command()
def models() -> None:
    """Print the layers and parameters of each model."""
    from rich.console import Console
    from rich.table import Table

    from job.engine.runtime import start_tensorflow

    # Nothing is computed.
    start_tensorflow(device="cpu")
    from job.models import MODELS, build_model

    console = Console()
    for name in MODELS:
        model = build_model(name)
        table = Table(title=f"{name}: {model.count_params():,} parameters", title_justify="left")
        for column in ("layer", "kind", "activation", "output"):
            table.add_column(column)
        table.add_column("parameters", justify="right")
        for layer in model.layers:
            activation = getattr(layer, "activation", None)
            table.add_row(
                layer.name,
                type(layer).__name__,
                activation.__name__ if activation else "",
                " × ".join(str(n) for n in layer.output.shape[1:]),
                f"{layer.count_params():,}",
            )
        console.print(table)


cli.add_command(export)


def _start(verbose: bool) -> None:
    from job.engine.runtime import start_anywhere

    start_anywhere(verbose=verbose)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 bad input, 128 + n ended by signal n."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        cli.main(arguments, prog_name="lenet", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as help_text:
        print(help_text.format_message())
        return 0
    except click.ClickException as error:
        print(f"error: {_one_line(error.format_message())}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # A full or failing disk, say: no fault of the program, and a traceback would not help.
        print(f"error: {error.filename or 'input/output'}: {error.strerror}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(message: str) -> str:
    return " ".join(message.split())


if __name__ == "__main__":
    main()
