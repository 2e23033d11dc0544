"""Commands about many trainings: `lenet sweep` and `lenet report`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click

from job.config.flags import PLACE, json_option, options_of, storage_option, verbose_option
from tuning.config import RUN_FIELDS, SWEEP_FIELDS


@click.command()
@options_of(SWEEP_FIELDS)
@options_of(RUN_FIELDS)
@click.option("--overwrite", is_flag=True, help="Start anew where a sweep of that name exists.")
@verbose_option
@json_option
def sweep(overwrite: bool, verbose: bool, as_json: bool, **options: str | None) -> None:
    """Search batch size, optimizer and learning rate, and name the best.

    Validation examples decide; the test set is read once, for the winner. A setting that is given
    here holds for all trials and is not searched. A sweep that was interrupted goes on when it is
    called again with the same --name.
    """
    from job.training.signals import stop_on_signal
    from tuning.display import sweep_display
    from tuning.sweep import prepare_sweep, run_sweep, summary

    given = {name: value for name, value in options.items() if value is not None}
    opened = prepare_sweep(given, overwrite=overwrite)
    opened.folder.storage.probe()
    with sweep_display(opened.trials, opened.epochs) as display, stop_on_signal(display) as stop:
        done, winner = run_sweep(opened, display, stop_requested=stop, verbose=verbose)
    print(json.dumps(dataclasses.asdict(winner)) if as_json else summary(done, winner))


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@storage_option
@click.option(
    "--out",
    type=PLACE,
    metavar="FOLDER",
    help="Where to write; report-NAME, or report-comparison, by default.",
)
@click.option("--price-per-hour", metavar="PRICE", help="Of what one trial or run occupies.")
def report(names: Sequence[str], storage: str, out: str | None, price_per_hour: str | None) -> None:
    """Write what a sweep or a run came to as one HTML file; several names are compared.

    A name is that of a sweep or a run, or a path to its folder. Tables of trials and epochs are
    written beside it, as CSV and Parquet.
    """
    from tuning.report.command import report as write

    for path in write(names, storage, out, price_per_hour):
        print(path)
