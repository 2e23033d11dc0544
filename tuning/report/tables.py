"""What a report shows, as tables for programs: full precision, one row for each trial or run."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from job.compare.record import Record
from job.runs.state import EpochRow
from tuning.records import Sweep, Trial
from tuning.report.frame import Price
from tuning.report.totals import held_by_one, seconds_of, train_seconds_of

Rows = list[dict[str, Any]]
EPOCH_FIELDS = tuple(EpochRow.__dataclass_fields__)


def trial_rows(sweep: Sweep, price: Price | None) -> Rows:
    """A row for each trial.

    Settings are in columns named `settings.NAME`, what the sampler drew in `drawn.NAME`, so that no
    setting can take another column's name.
    """
    winner, held = sweep.winner, held_by_one(sweep.config)
    return [
        {
            "trial": trial.plan.number,
            "kind": trial.plan.kind,
            "repeats": trial.plan.repeats,
            "winner": winner is not None and trial.plan.number == winner.trial,
            "state": trial.outcome.state,
            "seed": trial.plan.seed,
            **_prefixed("settings", trial.plan.settings),
            **_prefixed("drawn", trial.plan.drawn),
            **_history_facts(trial.outcome.history, trial.outcome.best),
            "test_accuracy": _test_accuracy(sweep, trial),
            "train_seconds": train_seconds_of(trial.outcome),
            "total_seconds": seconds_of(trial.outcome),
            "cpu_hours": held.cpu_hours(seconds_of(trial.outcome)),
            "gpu_hours": held.gpu_hours(seconds_of(trial.outcome)),
            "cost": price.of(seconds_of(trial.outcome)) if price else None,
            "currency": (price and price.currency) or None,
            "started": trial.outcome.started,
            "restarts": trial.outcome.restarts,
            "device": trial.outcome.device,
            "error": trial.outcome.error,
        }
        for trial in sweep.trials
    ]


def run_rows(entries: Iterable[Record]) -> Rows:
    """A row for each run."""
    return [
        {
            "run": entry.name,
            "state": entry.state,
            "seed": entry.seed,
            **_prefixed("settings", entry.settings),
            **_history_facts(entry.history, entry.best),
            "test_accuracy": entry.test_accuracy,
            "train_seconds": entry.train_seconds,
            "device": entry.device,
            "created": entry.created,
        }
        for entry in entries
    ]


def epoch_rows(key: str, histories: Iterable[tuple[Any, Sequence[EpochRow]]]) -> Rows:
    """A row for each epoch of each trial or run, which the column `key` names."""
    return [
        {key: name, **{field: getattr(row, field) for field in EPOCH_FIELDS}}
        for name, history in histories
        for row in history
    ]


def _history_facts(history: Sequence[EpochRow], best: EpochRow | None) -> dict[str, Any]:
    return {
        "epochs": len(history),
        "best_epoch": best and best.epoch,
        "val_accuracy": best and best.val_accuracy,
        "val_loss": best and best.val_loss,
    }


def _test_accuracy(sweep: Sweep, trial: Trial) -> float | None:
    winner = sweep.winner
    if winner is None:
        return None
    read = dict(zip(winner.members, winner.test_accuracy, strict=False))
    return read.get(trial.plan.number)


def _prefixed(prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in settings.items()}


def as_files(name: str, rows: Rows) -> dict[str, bytes]:
    """The table as `NAME.csv` and `NAME.parquet`."""
    table = to_table(rows)
    csv, parquet = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(table, csv)
    pyarrow.parquet.write_table(table, parquet)
    return {f"{name}.csv": csv.getvalue(), f"{name}.parquet": parquet.getvalue()}


def to_table(rows: Rows) -> pa.Table:
    """The rows as a table whose columns are those of all rows, in order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({_text(name): _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    """A column of one type: a space may mix numbers and words, or hold lists."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds == {bool}:
        return pa.array(values)
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    return pa.array([None if value is None else _text(value) for value in values])


def _text(value: Any) -> str:
    """A value as text that can be encoded, without halves of surrogate pairs."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode(errors="replace").decode()
