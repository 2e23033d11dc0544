"""`lenet runs`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from job.config.flags import beginnings, json_option, run_names, storage_option
from job.errors import InputError, JobError, nearest
from job.runs.order import COLUMNS

if TYPE_CHECKING:
    from job.runs.listing import Listed


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1, shell_complete=run_names)
@storage_option
@click.option(
    "--sort",
    metavar="COLUMN",
    shell_complete=beginnings(tuple(COLUMNS)),
    help=f"By {', '.join(COLUMNS)}.  [age]",
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
    from job.runs.order import condition, in_order, matching

    pins = pin is not None or unpin is not None
    if sort is not None and sort not in COLUMNS:
        raise InputError(
            "--sort", sort, f"choose one of {', '.join(COLUMNS)}{nearest(sort, COLUMNS)}"
        )
    if delete + clean + pins > 1:
        raise InputError("--delete" if delete else "--clean", None, "goes with no other change")
    if (delete and not names) or (pins and len(names) != 1):
        what = "runs that are to go" if delete else "run whose checkpoint is meant"
        raise InputError("RUN", None, f"name the {what}")
    wanted = [condition(one) for one in filters]
    # What is to go has to be named in full.
    meant = names if delete else _in_full(names, storage)
    found = listing.list_runs(storage, only=meant)
    for name in meant:
        if name not in {run.name for run in found}:
            raise InputError("RUN", name, f"no such run in {storage}; `lenet runs` lists them")
    found = matching(found, wanted)
    if sort is not None:
        found = in_order(found, sort)
    for step, pinned in ((pin, True), (unpin, False)):
        if step is not None:
            for run in found:
                listing.pin(run, step, pinned)
    if delete or clean:
        removed = _delete(found, storage, yes) if delete else _clean(found, yes)
        if as_json:
            print(json.dumps({"removed": list(removed)}))
            return
        for one in removed:
            print(f"removed {one}")
    elif as_json:
        print(json.dumps(show.as_documents(found, detail=bool(names))))
    elif filters and not found:
        print(f"none of the runs in {storage} has {' and '.join(filters)}")
    else:
        show.print_runs(storage, found, detail=bool(names))


def _in_full(names: Sequence[str], storage: str) -> list[str]:
    from job.runs.names import find
    from job.runs.run import RUNS

    return [find(name, storage, RUNS).name for name in names]


def _delete(found: Sequence[Listed], storage: str, yes: bool) -> Iterator[str]:
    from job.runs.listing import delete
    from job.runs.table import size

    names = ", ".join(run.name for run in found) or "nothing"
    if not yes and not click.confirm(
        f"Remove {names}: {size(sum(run.size for run in found))}?", err=True
    ):
        return
    for run in found:
        with _left_if_held(run):
            delete(run, storage)
        yield run.name


def _clean(found: Sequence[Listed], yes: bool) -> Iterator[str]:
    from job.runs.listing import orphans, remove_orphans

    left = orphans(found)
    for run, folders in left:
        click.echo(f"{run.name}: {', '.join(folders)}", err=True)
    if not left:
        click.echo("nothing to remove", err=True)
    elif yes or click.confirm("Remove these unfinished checkpoints?", err=True):
        for run, _ in left:
            with _left_if_held(run):
                folders = remove_orphans(run)
            yield from (f"{run.name}/{folder}" for folder in folders)


@contextlib.contextmanager
def _left_if_held(run: Listed) -> Iterator[None]:
    from job.storage.base import LockedError

    try:
        yield
    except LockedError as holder:
        raise JobError(f"{run.name}: {holder} trains this run; it was left") from holder
