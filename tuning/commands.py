"""Commands about many trainings: `lenet sweep` and `lenet report`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from job.config.flags import (
    PLACE,
    GroupedCommand,
    config_option,
    json_option,
    names_in_storage,
    on_end_option,
    options_of,
    storage_option,
    told,
    verbose_option,
)
from job.errors import InputError
from tuning.config import RUN_FIELDS, SWEEP_FIELDS

REPORTED = names_in_storage("config.json", "sweep.json")


@click.command(cls=GroupedCommand)
@options_of(SWEEP_FIELDS)
@options_of(RUN_FIELDS)
@config_option
@on_end_option
@click.option("--overwrite", is_flag=True, help="Start anew where a sweep of that name exists.")
@verbose_option
@json_option
def sweep(
    config_file: str | None,
    on_end: str | None,
    overwrite: bool,
    verbose: bool,
    as_json: bool,
    **options: str | None,
) -> None:
    """Search batch size, optimizer and learning rate, and name the best.

    Validation examples decide; the test set is read once, for the winner. A setting that is given
    here holds for all trials and is not searched. A sweep that was interrupted goes on when it is
    called again with the same --name.
    """
    from job.commands.on_end import on_end as calling
    from job.runs.folder import absolute
    from job.training.signals import stop_on_signal
    from tuning.display import sweep_display
    from tuning.records import WINNER_FILE
    from tuning.space.space import DEFAULT, read_space
    from tuning.sweep import prepare_sweep, run_sweep, summary

    # Of another run a sweep takes what it does not search itself.
    is_own = config_file and options["space"]
    searched = read_space(str(options["space"])).fields if is_own else set(DEFAULT)
    given, usual = told(options, config_file, {**SWEEP_FIELDS, **RUN_FIELDS}, but=searched)
    opened = prepare_sweep(given, usual=usual, overwrite=overwrite)
    opened.folder.storage.probe()
    folder = opened.folder
    with (
        calling(on_end, folder.name, absolute(f"{folder.storage.uri}/{WINNER_FILE}")),
        sweep_display(opened.trials, opened.epochs) as display,
        stop_on_signal(display) as stop,
    ):
        done, winner = run_sweep(opened, display, stop_requested=stop, verbose=verbose)
    print(json.dumps(dataclasses.asdict(winner)) if as_json else summary(done, winner))


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=REPORTED)
@storage_option
@click.option(
    "--out",
    type=PLACE,
    metavar="FOLDER",
    help="Where to write; report-NAME, or report-comparison, by default.",
)
@click.option(
    "--price-per-hour",
    metavar="PRICE",
    help="Of what one trial of a sweep holds, with its currency: 2.50EUR.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Write nothing, but show it to this machine's browsers, and follow what still trains, "
    "until Ctrl-C.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Where --serve answers; one that is free by default.",
)
@json_option
def report(
    names: Sequence[str],
    storage: str,
    out: str | None,
    price_per_hour: str | None,
    serve: bool,
    port: int,
    as_json: bool,
) -> None:
    """Write what a sweep or a run came to as one HTML file; several names are compared.

    A name is that of a sweep or a run, or a path to its folder. Tables of trials and epochs are
    written beside it, as CSV and Parquet, and next-space.yaml, where a next sweep should search.
    """
    if serve:
        if out is not None:
            raise InputError("--out", out, "nothing is written with --serve; leave one of them out")
        from tuning.report.frame import price_of
        from tuning.report.serve import Live
        from tuning.report.serve import serve as answer

        def announce(url: str) -> None:
            words = f"{url} follows {', '.join(names)}; Ctrl-C ends it"
            print(json.dumps({"url": url}) if as_json else words, flush=True)

        answer(Live(names, storage, price_of(price_per_hour)), port, announce)
        return
    from tuning.report.command import report as write

    files = write(names, storage, out, price_per_hour)
    print(json.dumps({"files": files}) if as_json else "\n".join(files))


COMPLETION = """\b
bash   eval "$(lenet completion bash)"   in ~/.bashrc
zsh    eval "$(lenet completion zsh)"   in ~/.zshrc
fish   lenet completion fish > ~/.config/fish/completions/lenet.fish"""


@click.command(epilog=COMPLETION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what lets SHELL complete commands, options and their values at the Tab key."""
    # The group stands above this module, which it loads.
    root = click.get_current_context().find_root()
    found = get_completion_class(shell)
    assert found is not None  # one of click's own
    print(found(root.command, {}, "lenet", "_LENET_COMPLETE").source())
