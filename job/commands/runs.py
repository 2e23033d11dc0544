"""`lenet runs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from job.config.flags import json_option, run_names, storage_option
from job.errors import InputError, JobError, nearest


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@storage_option
@click.option(
    "--sort",
    metavar="COLUMN",
    help="By name, model, dataset, state, epochs, val_accuracy, test_accuracy, age or size.  [age]",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Only runs with this in a column or a setting; may be given several times.",
)
@click.option(
    "--pin", type=int, metavar="STEP", help="Keep RUN's checkpoint of this step for good."
)
@click.option("--unpin", type=int, metavar="STEP", help="No longer keep it.")
@click.option("--clean", is_flag=True, help="Remove what crashed attempts left; asks first.")
@click.option("--delete", is_flag=True, help="Remove each RUN and all that it left; asks first.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def runs(
    names: Sequence[str],
    storage: str,
    sort: str | None,
    filters: Sequence[str],
    pin: int | None,
    unpin: int | None,
    clean: bool,
    delete: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List the runs kept in a place, or show each RUN with its checkpoints."""
    from job.runs import listing
    from job.runs import table as show

    if sort is not None and sort not in listing.COLUMNS:
        known = ", ".join(listing.COLUMNS)
        raise InputError("--sort", sort, f"choose one of {known}{nearest(sort, listing.COLUMNS)}")
    pins = pin is not None or unpin is not None
    if (delete and not names) or (pins and len(names) != 1):
        what = "runs that are to go" if delete else "run whose checkpoint is meant"
        raise InputError("RUN", None, f"name the {what}")
    found = listing.list_runs(storage, only=names)
    for name in names:
        if name not in {run.name for run in found}:
            raise InputError("RUN", name, f"no such run in {storage}; `lenet runs` lists them")
    found = listing.matching(found, filters)
    if sort is not None:
        found = listing.in_order(found, sort)
    for step, pinned in ((pin, True), (unpin, False)):
        if step is not None:
            listing.pin(found[0], step, pinned)
    if delete:
        _delete(found, storage, yes)
    elif clean:
        _clean(found, yes)
    elif as_json:
        print(json.dumps(show.as_documents(found, detail=bool(names))))
    else:
        show.print_runs(storage, found, detail=bool(names))


def _delete(found: Sequence[Any], storage: str, yes: bool) -> None:
    from job.runs import listing
    from job.runs.table import size
    from job.storage.base import LockedError

    total = size(sum(run.size for run in found))
    names = ", ".join(run.name for run in found)
    if not yes and not click.confirm(f"Remove {names}: {total}?", err=True):
        return
    for run in found:
        try:
            listing.delete(run, storage)
        except LockedError as holder:
            raise JobError(f"{run.name}: {holder} trains this run; it was left") from holder
        print(f"removed {run.name}")


def _clean(found: Sequence[Any], yes: bool) -> None:
    from job.runs import listing
    from job.storage.base import LockedError

    left = listing.orphans(found)
    for run, folders in left:
        print(f"{run.name}: {', '.join(folders)}")
    if not left:
        print("nothing to remove")
    elif yes or click.confirm("Remove these unfinished checkpoints?"):
        for run, _ in left:
            try:
                listing.remove_orphans(run)
            except LockedError as holder:
                raise JobError(f"{run.name}: {holder} trains this run; it was left") from holder
