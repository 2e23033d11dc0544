"""Runs as a table, or as documents for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from job.runs.listing import Listed
from job.text import duration, percent

# Columns of a terminal that have room for what most names tell as well.
WIDE = 100


def as_documents(runs: Sequence[Listed], *, detail: bool) -> list[dict[str, Any]]:
    """The runs as JSON documents; with `detail` also files, settings and checkpoints."""
    documents = []
    for listed in runs:
        document = {f.name: getattr(listed, f.name) for f in dataclasses.fields(listed)}
        run, files = document.pop("run"), document.pop("files")
        if detail and listed.state != "unreadable":
            document["files"] = files
            document["config"] = run.config.to_dict()
            document["checkpoints"] = [dataclasses.asdict(e) for e in run.checkpoints.entries()]
        documents.append(document)
    return documents


def print_runs(place: str, runs: Sequence[Listed], *, detail: bool) -> None:
    """Prints a table of runs to stdout; `detail` adds the checkpoints and files of each."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not runs:
        console.print(f"no runs in {place}; `lenet train` makes one", markup=False)
        return
    table = Table(box=None, pad_edge=False)
    # A name in two lines is still one that can be copied; figures are never cut.
    table.add_column("name", overflow="fold")
    wide = ("model", "data") if console.width >= WIDE else ()
    for column in (*wide, "state"):
        table.add_column(column, no_wrap=True)
    for column in ("epochs", "best val", "test", "age", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            *(run.name, *((run.model, run.dataset) if wide else ()), run.state, str(run.epochs)),
            *(percent(run.val_accuracy), percent(run.test_accuracy)),
            *(age(run.age), size(run.size)),
        )
    console.print(table)
    if detail:
        for run in runs:
            print_detail(console, run)


def print_detail(console: Any, listed: Listed) -> None:
    """Prints where a run is, its checkpoints and its other files; nothing if it is unreadable."""
    run = listed.run
    if run is None or listed.state == "unreadable":
        return
    console.print(f"\n{run.storage.uri}", markup=False)
    for entry in run.checkpoints.entries():
        loss = "" if entry.val_loss is None else f"  val_loss {entry.val_loss:.4f}"
        pinned = "  pinned" if entry.pinned else ""
        console.print(f"   checkpoint step {entry.step:>8,}{loss}{pinned}", markup=False)
    for path, count in sorted(listed.files.items()):
        if not path.startswith("checkpoints/"):
            console.print(f"   {size(count):>9}  {path}", markup=False)


def age(seconds: float) -> str:
    """Seconds as `3 d`, below a day as `duration` has them."""
    days = int(seconds // 86_400)
    return f"{days} d" if days else duration(seconds)


def size(count: int) -> str:
    """Bytes as `1.2 MB`, below 0.1 MB as `1.2 kB`."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
