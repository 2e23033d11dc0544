"""The recipe `best`: how it was chosen, its accuracy, and beside the notebook's settings.

    python -m benchmarks.accuracy.best sweep lenet5  # the trials that it was chosen from
    python -m benchmarks.accuracy.best sweep quick   # as for ffnn; and flags of `lenet sweep`
    python -m benchmarks.accuracy.best run           # its runs; finished ones are not repeated
    python -m benchmarks.accuracy.best table         # the tables, from docs/results

The sweeps of fashion-lenet5 and fashion-alexnet are those of the study `fashion-best` (studies.py).
Trials have 48,000 rows and 12,000 to choose by; of the runs that come after 3,000 validate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy import fashion, studies
from job.compare.compare import p_text
from job.config.config import is_fixed
from job.config.fields import typed
from job.config.recipes import BENT
from job.runs.state import EpochRow, best_row
from job.storage.base import Storage
from job.storage.open import open_storage
from tuning.records import UNFINISHED, Sweep, Trial, read_sweep, with_epochs
from tuning.space.space import read_space

STUDY = "best"
COMPARED = studies.RESULTS / "best-compared.json"
SPACES = Path(__file__).with_name("spaces")


class Search(NamedTuple):
    """What is the same in all trials of a sweep."""

    model: str
    epochs: int
    settings: dict[str, Any]


CLOTHES = {"dataset": "fashion-mnist", "augment_flip": "horizontal", "label_smoothing": 0.1}
MUON = {"optimizer": "muon", "weight_decay": 0.05}
SEARCHES = {
    "quick": Search("lenet5", 3, {"label_smoothing": 0.05}),
    "lenet5": Search("lenet5", 50, BENT),
    "ffnn": Search("ffnn", 100, BENT),
    "ffnn-muon": Search("ffnn", 50, {**BENT, **MUON}),
    "fashion-lenet5": Search("lenet5", 25, CLOTHES),
    "fashion-alexnet": Search("alexnet", 25, CLOTHES),
}
MODELS = ("lenet5", "ffnn")


def sweep(name: str, storage: str, more: Sequence[str]) -> None:
    """Searches, going on where it was interrupted, and keeps what came of each trial."""
    search = SEARCHES[name]
    space = SPACES / f"{name}.toml"
    searched = read_space(str(space)).fields
    same = {"model": search.model, "batch_size": 128, "best_by": "accuracy", **search.settings}
    fixed = ((field, value) for field, value in same.items() if field not in searched)
    flags = [word for field, value in fixed for word in typed(field, value)]
    how = ["--max-epochs", str(search.epochs), "--search", "grid", "--scheduler", "fifo"]
    where = ["--seed", "100", "--storage", storage, "--name", f"best-{name}"]
    command = [sys.executable, "-m", "tuning.cli", "sweep", "--address", "local"]
    subprocess.run([*command, *flags, *how, "--space", str(space), *where, *more], check=True)
    keep(name, storage)


def keep(name: str, storage: str) -> None:
    """Keeps what came of each trial, also of those that were interrupted."""
    folder = open_storage(storage).at(f"best-{name}")
    kept(name).write_text(json.dumps(of_sweep(read_sweep(folder), folder), indent=1) + "\n")


def kept(name: str) -> Path:
    return studies.RESULTS / f"best-sweep-{name}.json"


def of_sweep(done: Sweep, folder: Storage) -> dict[str, Any]:
    """What is kept of a sweep: its settings and, of each trial, the best epoch and the last."""
    return {
        "base": {k: v for k, v in done.base.items() if is_fixed(k)},
        "hardware": done.hardware,
        "versions": done.versions,
        "trials": [
            of_trial(trial, rows)
            for trial in done.trials
            if (rows := with_epochs(trial, folder).outcome.history)
        ],
    }


def of_trial(trial: Trial, rows: Sequence[EpochRow]) -> dict[str, Any]:
    best, last = best_row(rows, "accuracy"), rows[-1]
    assert best is not None  # there is a row
    return {
        "settings": trial.plan.settings,
        "state": trial.outcome.state,
        "epochs": last.epoch,
        "best_epoch": best.epoch,
        "val_accuracy": best.val_accuracy,
        "last_val_accuracy": last.val_accuracy,
        "last_accuracy": last.accuracy,
    }


def run(storage: str) -> None:
    """Trains what is missing, and tests whether it differs from the notebook's settings."""
    studies.run(STUDY, storage)
    tests = []
    for model in MODELS:
        notebook = studies.trained("notebook", model, 1, storage).parent.name
        ours = [r["name"] for r in studies.document(STUDY)["runs"] if r["setting"] == model]
        tests.append({"model": model, **fashion.compared([*ours, notebook], storage)})
    COMPARED.write_text(json.dumps(tests, indent=1) + "\n")


def table() -> str:
    """McNemar's tests, as Markdown."""
    lines = [
        "| model | only `best` is right | only the notebook's settings | p |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {test['model']} | {test['only_first_right']} | {test['only_second_right']} "
        f"| **{p_text(test['p_value'])}** |"
        for test in json.loads(COMPARED.read_text())
    ]
    said = "McNemar's exact test on the 10,000 test examples: of `best` the seed with the best "
    return "\n".join([*lines, "", f"{said}validation accuracy, of the notebook's settings seed 1."])


def sweep_table(result: Path) -> str:
    """The trials of a sweep, the best first, as Markdown."""
    document = json.loads(result.read_text())
    names = list(dict.fromkeys(name for t in document["trials"] for name in t["settings"]))
    head = [name.replace("_", " ") for name in names]
    head += ["epochs", "training accuracy, last epoch", "validation accuracy", "last epoch's"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for trial in sorted(document["trials"], key=lambda t: t["val_accuracy"], reverse=True):
        settings = [str(trial["settings"].get(name, "")) for name in names]
        accuracies = [trial[k] for k in ("last_accuracy", "val_accuracy", "last_val_accuracy")]
        row = [*settings, str(trial["epochs"]), *(f"{accuracy:.2%}" for accuracy in accuracies)]
        lines.append(f"| {' | '.join(row)} |")
    said = (
        f"48,000 rows, seed 100; {document['hardware']}. Validation accuracy is that of the best "
    )
    note = f"{said}epoch.{interrupted(document['trials'])}"
    return "\n".join([*lines, "", note])


def interrupted(trials: Sequence[dict[str, Any]]) -> str:
    """A sentence about trials that were."""
    count = sum(trial["state"] == UNFINISHED for trial in trials)
    return f" {count} of {len(trials)} trials were interrupted before their last." if count else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["sweep", "run", "table"])
    parser.add_argument("name", choices=SEARCHES, nargs="?", help="which sweep")
    parser.add_argument("--storage", default="runs", help="where the runs are kept")
    arguments, more = parser.parse_known_args()
    if arguments.action == "sweep":
        sweep(arguments.name, arguments.storage, more)
        print(sweep_table(kept(arguments.name)))
    elif arguments.action == "run":
        run(arguments.storage)
    if arguments.action != "sweep":
        print(studies.table(STUDY), table(), sep="\n\n")


if __name__ == "__main__":
    main()
