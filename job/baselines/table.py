"""The table of `lenet baselines`: as a document, for people, and for the docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from job import stats
from job.compare.record import Group, Record, check_seeds, groups_of


def to_document(entries: Sequence[Record]) -> dict[str, Any]:
    """The table as a document: a row for each method and for each group of runs.

    Runs of a group differ by their seed alone; all rows are of one split.
    """
    dataset, groups = entries[0].dataset, groups_of(entries)
    check_seeds(groups)
    return {
        "dataset": dataset.name,
        "train_rows": entries[0].train_rows,
        "test_examples": dataset.test_rows,
        "rows": [_row(group) for group in groups],
    }


def _row(group: Group) -> dict[str, Any]:
    first = group.first
    figures = ("val_accuracy", "test_accuracy", "train_seconds", "search_seconds", "test_seconds")
    return {
        "title": group.title,
        "features": first.features,
        "settings": first.how,
        "n": len(group.members),
        **{name: group.values(name) for name in figures},
        "device": first.device,
    }


# Heading and text of each column; the first three stand left.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda row: row["title"],
    "given": lambda row: row["features"],
    "settings": lambda row: row["settings"],
    "validation": lambda row: stats.mean_text(row["val_accuracy"]),
    "test": lambda row: stats.mean_text(row["test_accuracy"]),
    "n": lambda row: str(row["n"]),
    "choosing": lambda row: _seconds(row["search_seconds"]),
    "training": lambda row: _seconds(row["train_seconds"]),
    "predicting": lambda row: _seconds(row["test_seconds"]),
}


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, _ = stats.mean_sd(values)
    return f"{mean:.1f} s" if mean < 99.95 else f"{mean:.0f} s"


def note_of(document: dict[str, Any]) -> str:
    """What stands below the table."""
    devices = dict.fromkeys(row["device"] for row in document["rows"])
    return (
        f"{document['dataset']}: {document['train_rows']:,} training rows; "
        f"predicting {document['test_examples']:,} test examples; "
        f"{', then '.join(devices)}."
    )


def print_table(document: dict[str, Any]) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 3 else "right", no_wrap=number > 2)
    for row in document["rows"]:
        table.add_row(*(text(row) for text in COLUMNS.values()))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n{note_of(document)}", markup=False, soft_wrap=True)
