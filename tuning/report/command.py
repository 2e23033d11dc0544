"""`lenet report`: from names to files."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from job.compare.record import Record, check_comparable
from job.errors import InputError, JobError
from job.extras import check_installed
from job.runs.folder import absolute, usable
from job.runs.names import Found, find
from job.runs.run import CONFIG_FILE, RUNS, Run, run_at
from job.storage.base import Storage
from job.storage.open import open_storage
from job.waiting import waiting
from tuning.records import SWEEP_FILE, Sweep, Trial, read_sweep, with_epochs
from tuning.report import tables
from tuning.report import totals as facts
from tuning.report.frame import Frame, price_of
from tuning.report.runs import record_of_run, records_of_winner
from tuning.space.advice import NEXT_SPACE_FILE, advice
from tuning.space.space import to_yaml

PAGE = "report.html"
# A sweep, or runs side by side.
Content = Sweep | list[Record]
# A heading names so many.
TITLED = 4
REPORTED = {**RUNS, SWEEP_FILE: "sweep"}

log = logging.getLogger(__name__)


@waiting("runs to be read and drawn")
def report(
    names: Sequence[str],
    storage: str = "runs",
    out: str | None = None,
    price_per_hour: str | float | None = None,
) -> list[str]:
    """Writes the report of a sweep, of a run, or of several side by side.

    Among several, a sweep is represented by its winner.

    Args:
        names: Names below `storage`, their beginnings, `last`, or paths, which have a `/`.
        storage: Where runs and sweeps are kept.
        out: The folder to write to; by default `report-NAME`, for several `report-comparison`, in
            the current folder. A report that is there is replaced.
        price_per_hour: Of what one trial holds, with its currency behind it: `2.50EUR`.

    Returns:
        The files, the page first.

    Raises:
        InputError: A name is unknown, or there is nothing to report; nothing was written.
        JobError: A run's record can't be trusted; nothing was written.
    """
    price = price_of(price_per_hour)
    meant = found_by(names, storage)
    targets = [_opened(found) for found in meant]
    folder = _folder(out, [found.name for found in meant])
    try:
        folder.probe()
    except InputError as error:
        raise InputError("--out", error.value, error.problem) from error
    # A command reads a space from this disk only.
    place = "" if folder.is_remote else f"{folder.uri}/"
    files = write_report(targets, Frame(written=time.time(), price=price, place=place))
    for name, content in files.items():
        folder.write(name, content)
    if NEXT_SPACE_FILE not in files:
        folder.delete(NEXT_SPACE_FILE)
    return [f"{folder.uri}/{name}" for name in files]


def found_by(names: Sequence[str], storage: str) -> list[Found]:
    """What each name means.

    Raises:
        InputError: There is no name, one is given twice, or an extra is missing.
    """
    if not names:
        raise InputError("NAME", None, "name a sweep or a run")
    check_installed("report", "lenet report")
    meant = [find(name, storage, REPORTED, field="NAME") for name in names]
    places = [absolute(found.folder.uri) for found in meant]
    for found, place in zip(meant, places, strict=True):
        if places.count(place) > 1:
            raise InputError(
                "NAME", found.name, "is named twice; a comparison needs different ones"
            )
    return meant


def write_report(targets: Sequence[Sweep | Run], frame: Frame) -> dict[str, bytes]:
    """The files of a report by name, the page first.

    Raises:
        InputError: There is nothing to report, or what would be compared does not compare.
        JobError: A run's record can't be trusted.
    """
    return files_of(content_of(targets), title_of(targets), frame)


def content_of(targets: Sequence[Sweep | Run]) -> Content:
    """What is to be reported, as values that can be compared. Raises as `write_report`."""
    if len(targets) == 1 and isinstance(targets[0], Sweep):
        return targets[0]
    entries = _told_apart([record for target in targets for record in _records(target)])
    check_comparable(entries, "NAME")
    return entries


def files_of(content: Content, title: str, frame: Frame) -> dict[str, bytes]:
    """The files of a report by name, the page first. Raises InputError for an empty one."""
    if isinstance(content, Sweep):
        return _of_sweep(content, frame)
    from tuning.report.runs_page import runs_page

    return {
        PAGE: runs_page(content, title, frame),
        **tables.as_files("runs", tables.run_rows(content)),
        **tables.as_files(
            "epochs", tables.epoch_rows("run", ((e.name, e.history) for e in content))
        ),
    }


def _of_sweep(sweep: Sweep, frame: Frame) -> dict[str, bytes]:
    if not any(trial.outcome.history for trial in facts.search_trials(sweep)):
        raise InputError("NAME", sweep.name, "has no trial with a finished epoch yet; let it go on")
    from tuning.report.sweep_page import sweep_page

    histories = ((trial.plan.number, trial.outcome.history) for trial in sweep.trials)
    next_one = advice(sweep)
    files = {
        PAGE: sweep_page(sweep, next_one, frame),
        **tables.as_files("trials", tables.trial_rows(sweep, frame.price)),
        **tables.as_files("epochs", tables.epoch_rows("trial", histories)),
    }
    if next_one.space is not None:
        files[NEXT_SPACE_FILE] = to_yaml(next_one.space)
    return files


def _records(target: Sweep | Run) -> list[Record]:
    return records_of_winner(target) if isinstance(target, Sweep) else [record_of_run(target)]


def title_of(targets: Sequence[Sweep | Run]) -> str:
    """The heading of a report."""
    names = [each.name for each in targets]
    more = len(names) - TITLED
    return ", ".join(names[:TITLED]) + (f" and {more} more" if more > 0 else "")


def _told_apart(entries: Sequence[Record]) -> list[Record]:
    """The entries; those whose name came before, from another place, get a number."""
    seen: Counter[str] = Counter()
    found = []
    for entry in entries:
        seen[entry.name] += 1
        number = seen[entry.name]
        name = entry.name if number == 1 else f"{entry.name} ({number})"
        found.append(dataclasses.replace(entry, name=name))
    return found


def open_target(name: str, storage: str, known: Sweep | Run | None = None) -> Sweep | Run:
    """Opens what a name means; `known` is what it was before.

    Raises:
        InputError: There is neither a sweep nor a run.
    """
    return _opened(find(name, storage, REPORTED, field="NAME"), known)


def _opened(found: Found, known: Sweep | Run | None = None) -> Sweep | Run:
    name, folder, content = found
    with usable(folder.uri):
        if CONFIG_FILE in content:
            return run_at(folder)
        if SWEEP_FILE in content:
            return _open_sweep(name, folder, known if isinstance(known, Sweep) else None)
    if content:
        raise InputError(
            "NAME", name, f"{folder.uri} holds neither a sweep nor a run; name a folder of one"
        )
    raise InputError(
        "NAME",
        name,
        f"no sweep and no run in {folder.uri}; `lenet sweep` and `lenet train` make them",
    )


def _open_sweep(name: str, folder: Storage, known: Sweep | None) -> Sweep:
    try:
        sweep = read_sweep(folder, known)
    except (ValueError, FileNotFoundError) as error:
        raise InputError("NAME", name, f"can't be read: {error}") from error
    numbers = {trial.plan.number for trial in sweep.trials}
    if sweep.winner is not None and not {sweep.winner.trial, *sweep.winner.members} <= numbers:
        raise InputError("NAME", name, "its winner is none of its trials")
    trials = (_as_far_as_known(trial, folder) for trial in sweep.trials)
    return dataclasses.replace(sweep, trials=tuple(trials))


def _as_far_as_known(trial: Trial, folder: Storage) -> Trial:
    """A trial `with_epochs`, where they can be read."""
    try:
        return with_epochs(trial, folder)
    except JobError as problem:
        # The others are worth a report without it.
        log.warning("trial %d is shown without its epochs: %s", trial.plan.number, problem)
        return trial


def _folder(out: str | None, names: Sequence[str]) -> Storage:
    if out is not None:
        return open_storage(out, option="--out")
    last = PurePosixPath(os.path.abspath(names[0]) if "://" not in names[0] else names[0]).name
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "report"
    return open_storage(f"report-{safe}" if len(names) == 1 else "report-comparison")
