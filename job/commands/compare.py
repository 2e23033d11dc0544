"""`lenet compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from job.config.flags import json_option, run_names, storage_option


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=run_names)
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
