"""This project beside what a user would pick instead: one table of all comparisons.

A row is ours against a peer's, whoever is ahead. Where nothing is kept it says "not measured".
comparisons.py says which rows there are; the figures are those that the benchmarks keep.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kit.paired import compared, ratio

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NOT_MEASURED = "not measured"

Pairs = Sequence[tuple[float, float]]
Documents = Mapping[str, dict[str, Any]]


class Found(NamedTuple):
    """What was measured: ours and the peer's figure for each pair, and the accuracies of both."""

    pairs: Pairs = ()
    accuracy: tuple[float, float] | None = None


Find = Callable[[dict[str, Any]], Found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """What a comparison should come to. Without any, ours should be ahead of a rival.

    Attributes:
        least: The ratio of ours to the peer's is at least this.
        most: The ratio is at most this.
        more: Ours is at most so much more than the peer's.
        ours: Our own figure is at most this.
    """

    least: float | None = None
    most: float | None = None
    more: float | None = None
    ours: float | None = None

    @property
    def is_given(self) -> bool:
        return self != Goal()

    def __str__(self) -> str:
        said = [
            f"≥ {self.least:g} ×" if self.least is not None else "",
            f"≤ {self.most:g} ×" if self.most is not None else "",
            f"≤ peer + {self.more:g}" if self.more is not None else "",
            f"ours ≤ {self.ours:g}" if self.ours is not None else "",
        ]
        return ", ".join(filter(None, said)) or "ahead"

    def holds(self, pairs: Pairs, is_ahead: bool) -> bool:
        """Judges medians over the pairs."""
        found = compared(pairs)
        checks = [
            self.least is None or found["ratio"] >= self.least,
            self.most is None or found["ratio"] <= self.most,
            self.more is None or statistics.median(a - b for a, b in pairs) <= self.more,
            self.ours is None or found["ours"] <= self.ours,
        ]
        return all(checks) if self.is_given else is_ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row of the table.

    Attributes:
        part: Its letter; rows of one kind share it.
        what: What is measured, with its unit.
        peer: Against what.
        document: The name of the file with the figures, without its end.
        find: Finds them in it.
        lower: Less is better.
        is_rival: The peer is something that a user could pick instead; else it is a bound or
            another way of using this project, and nobody is ahead.
        goal: What it should come to.
    """

    part: str
    what: str
    peer: str
    document: str
    find: Find
    lower: bool = False
    is_rival: bool = True
    goal: Goal = Goal()

    def is_ahead(self, pairs: Pairs) -> bool:
        """Whether ours is, by the median of the ratios."""
        found = compared(pairs)["ratio"]
        return found < 1 if self.lower else found > 1


def kept(rows: Iterable[Comparison], folder: Path = RESULTS) -> Documents:
    """The documents that the rows need and that are there, by name."""
    names = {row.document for row in rows}
    paths = {name: folder / f"{name}.json" for name in sorted(names)}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def found_in(documents: Documents, row: Comparison) -> Found:
    document = documents.get(row.document)
    return row.find(document) if document else Found()


def table(rows: Iterable[Comparison], documents: Documents) -> str:
    """All rows as Markdown."""
    lines = [
        "| | what | ours | peer | its | ours / its (min–max) | n | accuracy, ours and its "
        "| ahead | goal | holds |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        found = found_in(documents, row)
        start = f"| {row.part} | {row.what} |"
        if not found.pairs:
            lines.append(f"{start} {NOT_MEASURED} | {row.peer} | | | | | | {wanted(row)} | |")
            continue
        values = compared(found.pairs)
        lines.append(
            f"{start} {number(values['ours'])} | {row.peer} | {number(values['theirs'])} "
            f"| {ratio(values)} | {len(found.pairs)} | {percent(found.accuracy)} "
            f"| {ahead(row, found.pairs)} | {wanted(row)} | {verdict(row, found.pairs)} |"
        )
    return "\n".join([*lines, "", notes(documents)])


def short_table(rows: Iterable[Comparison], documents: Documents) -> str:
    """The rows with a goal of their own, as Markdown."""
    rows = tuple(rows)
    lines = ["| what | ours | peer | ours / its (min–max) | goal | holds |", "|---" * 6 + "|"]
    for row in rows:
        if not row.goal.is_given:
            continue
        found = found_in(documents, row)
        if not found.pairs:
            lines.append(f"| {row.what} | {NOT_MEASURED} | {row.peer} | | {row.goal} | |")
            continue
        values = compared(found.pairs)
        lines.append(
            f"| {row.what} | {number(values['ours'])} | {row.peer} | {ratio(values)} "
            f"| {row.goal} | {verdict(row, found.pairs)} |"
        )
    return "\n".join([*lines, "", behind(rows, documents)])


def behind(rows: Iterable[Comparison], documents: Documents) -> str:
    """In which rows a peer is ahead, in words."""
    found = [(row, found_in(documents, row).pairs) for row in rows]
    measured = [(row, pairs) for row, pairs in found if pairs]
    names = [
        f"{row.what.rpartition(', ')[0]} ({row.peer})"
        for row, pairs in measured
        if ahead(row, pairs) == THEIRS
    ]
    said = f"Of {len(measured)} rows measured, a peer is ahead in {len(names) or 'none'}"
    return f"{said}: {'; '.join(names)}." if names else f"{said}."


OURS, THEIRS = "ours", "**peer**"


def ahead(row: Comparison, pairs: Pairs) -> str:
    if not row.is_rival:
        return ""
    return OURS if row.is_ahead(pairs) else THEIRS


def wanted(row: Comparison) -> str:
    return str(row.goal) if row.is_rival or row.goal.is_given else ""


def verdict(row: Comparison, pairs: Pairs) -> str:
    if not wanted(row):
        return ""
    return "yes" if row.goal.holds(pairs, row.is_ahead(pairs)) else "**no**"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def percent(accuracy: tuple[float, float] | None) -> str:
    return ", ".join(f"{100 * value:.2f} %" for value in accuracy) if accuracy else ""


def notes(documents: Documents) -> str:
    """When and on what each document was measured."""
    lines = [
        "Medians over n pairs, measured in turn. A goal of ratios is judged by their median. "
        "Measured:",
        "",
    ]
    for name, document in documents.items():
        versions = ", ".join(f"{k} {v}" for k, v in document.get("versions", {}).items())
        where = document.get("where") or f"{document['date']}, {document['device']}; {versions}"
        lines.append(f"- {name}: {where}")
    return "\n".join(lines)
