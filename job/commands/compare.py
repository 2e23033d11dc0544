"""Commands that set models side by side: `lenet baselines` and `lenet compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from job.baselines.methods import BASELINE_FIELDS
from job.config.flags import json_option, options_of, storage_option, verbose_option


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
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
    from job.baselines.study import run_baselines, settle
    from job.baselines.table import print_table, to_document
    from job.training.progress import PlainProgress
    from job.training.signals import stop_on_signal

    given = {name: value for name, value in options.items() if value is not None}
    opened = settle(given, runs, overwrite=overwrite)
    opened.folder.probe()
    progress = PlainProgress()
    with stop_on_signal(progress) as stop:
        methods = run_baselines(opened, progress, stop, verbose=verbose)
    document = to_document([*methods, *opened.beside])
    if as_json:
        print(json.dumps(document))
    else:
        print_table(document)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@storage_option
@json_option
def compare(runs: Sequence[str], storage: str, as_json: bool) -> None:
    """Compare finished RUNs (names, or paths): mean ± sd over seeds, and McNemar's exact test.

    Runs that differ by their seed alone are one model. A path such as
    runs/baselines-mnist/svm-gradients names a method of `lenet baselines`.
    """
    from job.compare.compare import compare as compare_runs
    from job.compare.compare import print_comparison

    document = compare_runs(runs, storage)
    if as_json:
        print(json.dumps(document))
    else:
        print_comparison(document)
