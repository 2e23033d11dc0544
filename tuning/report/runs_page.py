"""What the page of one run, or of several side by side, shows."""

from __future__ import annotations

from collections.abc import Sequence

from job.compare.record import Group, Record, differing
from job.config.config import FIELDS
from job.text import counted
from tuning.report import text
from tuning.report.charts import curves as charts
from tuning.report.frame import Frame
from tuning.report.grid import Column, numbers, texts
from tuning.report.page import Chart, render
from tuning.report.runs import ranked

KINDS = ("accuracy", "loss")


def runs_page(entries: Sequence[Record], title: str, frame: Frame) -> bytes:
    """The page of runs that can be compared."""
    groups = ranked(entries)
    alone = entries[0] if len(entries) == 1 else None
    drawn = _curves_of_one(alone) if alone else _curves(groups)
    varying = differing([group.first for group in groups])
    ordered = [entry for group in groups for entry in group.members]
    settings = [group.first.settings for group in groups]
    common = {k: v for k, v in settings[0].items() if all(v == other.get(k) for other in settings)}
    facts = {k: v for k, v in alone.facts.items() if k != "versions"} if alone else {}
    shown = {
        "title": title,
        "alone": alone,
        "groups": [(look_of(place), group) for place, group in enumerate(groups)],
        "entries": ordered,
        "columns": _columns(ordered),
        "varying": varying,
        "common": [(text.words(k), text.setting(v)) for k, v in common.items()],
        "facts": [(text.words(k), text.setting(v)) for k, v in facts.items() if v is not None],
        "versions": text.flat(_versions(entries)),
        "pictures": drawn,
    }
    return render("runs.html.j2", frame, shown=shown, pictures=drawn, tips=_tips(groups, varying))


def _columns(entries: Sequence[Record]) -> list[Column]:
    """The table of all runs, but for its first two columns: name and state."""
    best = [entry.best for entry in entries]
    tested = [entry.test_accuracy for entry in entries]
    times = [entry.train_seconds for entry in entries]
    return [
        numbers("seed", [(str(entry.seed), entry.seed) for entry in entries]),
        numbers("epochs", [(str(len(entry.history)), len(entry.history)) for entry in entries]),
        numbers("best epoch", [(str(row.epoch), row.epoch) for row in best]),
        numbers(
            "validation accuracy", [(text.percent(r.val_accuracy), r.val_accuracy) for r in best]
        ),
        numbers("validation loss", [(text.loss(row.val_loss), row.val_loss) for row in best]),
        numbers("test accuracy", [(text.percent(value), value) for value in tested]),
        numbers("training", [(text.seconds(value), value) for value in times]),
        texts("device", [entry.device for entry in entries]),
    ]


def look_of(place: int) -> str:
    """The look of the group at a place; with many groups, looks come again."""
    return f"series-{place % charts.SERIES}"


def _versions(entries: Sequence[Record]) -> dict[str, str]:
    """The versions of each package, more than one where runs differ."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for name, version in (entry.facts.get("versions") or {}).items():
            if version not in found.setdefault(name, []):
                found[name].append(version)
    return {name: ", ".join(map(str, versions)) for name, versions in found.items()}


def _curves(groups: Sequence[Group]) -> list[Chart]:
    """Validation accuracy and loss of all runs; the best group is drawn last, on top."""
    count = sum(len(group.members) for group in groups)
    found = []
    for kind in KINDS:
        lines = [
            charts.line(entry.name, look_of(place), entry.history, f"val_{kind}")
            for place, group in reversed(list(enumerate(groups)))
            for entry in group.members
        ]
        found.append(
            Chart(
                name=f"curve-{kind}",
                title=f"Validation {kind}",
                spec=charts.curves(lines, is_accuracy=kind == "accuracy"),
                alternative=f"Line chart: validation {kind} of {counted(count, 'run')} over "
                "the epochs. All values are in epochs.csv.",
            )
        )
    return found


def _curves_of_one(entry: Record) -> list[Chart]:
    """Training and validation of one run."""
    return [
        Chart(
            name=f"curve-{kind}",
            title=kind.capitalize() + _made_harder(entry, kind),
            spec=charts.curves(
                [
                    charts.line("training", "series-1", entry.history, kind),
                    charts.line("validation", "series-0", entry.history, f"val_{kind}"),
                ],
                is_accuracy=kind == "accuracy",
            ),
            alternative=f"Line chart: {kind} in training and validation over "
            f"{counted(len(entry.history), 'epoch')}. The values are in the table of epochs.",
        )
        for kind in KINDS
    ]


def _made_harder(entry: Record, kind: str) -> str:
    """Why training may look worse than validation, where it may."""
    settings = entry.settings
    why = []
    if kind == "loss" and settings.get("label_smoothing"):
        why.append("against smoothed labels")
    bends = (name for name in settings if name.startswith("augment_"))
    if any(settings[name] != FIELDS[name].default for name in bends):
        why.append("on augmented images")
    return f" (in training {' and '.join(why)})" if why else ""


def _tips(groups: Sequence[Group], varying: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    tips = {
        entry.name: [
            ("run", entry.name),
            *((text.words(k), text.setting(entry.traits.get(k))) for k in varying),
            ("seed", str(entry.seed)),
            ("validation accuracy", text.percent(entry.best.val_accuracy)),
        ]
        for group in groups
        for entry in group.members
    }
    if len(tips) == 1:
        return {part: [("line", part)] for part in ("training", "validation")}
    return tips
