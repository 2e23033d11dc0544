"""`lenet runs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from job.config.flags import json_option, storage_option
from job.errors import InputError, JobError


@click.command()
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
