"""Accuracy studies: runs each setting with several seeds, keeps the results, prints the tables.

    python -m benchmarks.accuracy.studies run notebook  # the runs; finished ones are not repeated
    python -m benchmarks.accuracy.studies table notebook  # their table, from docs/results

Each run is a plain `lenet train`, so a study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from job.config.recipes import RECIPES
from job.stats import interval_text, mean_interval, mean_text

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NOTEBOOK = {"lenet5": "99.19 %", "ffnn": "37.36 % (a broken run)"}

CURVES = ("loss", "accuracy", "val_loss", "val_accuracy")

Setting = tuple[str, list[str]]

# The quick recipe as it was, which these studies are of.
BEFORE = ["--recipe", "quick-1"]
QUICK = [*BEFORE, "--batch-size", "128", "--learning-rate", "0.1", "--epochs", "8"]
FASHION = [*BEFORE, "--dataset", "fashion-mnist"]
# What a sweep for each model came to (best.py), with more rows to train on, and for LeNet5 the time
# that moved images need. Of 6,000 rows a tenth of a point is 6: enough to tell epochs apart.
CLOTHES = [
    *("--dataset", "fashion-mnist", "--augment-shift", "1", "--augment-flip", "horizontal"),
    *("--label-smoothing", "0.1", "--best-by", "accuracy", "--validation", "0.1"),
    *("--optimizer", "muon", "--weight-decay", "0.05"),
]
CLOTHED = {
    "lenet5": [*CLOTHES, "--model", "lenet5", "--epochs", "50", "--learning-rate", "0.003"],
    # Muon's part of a step costs the same for any number of images.
    "alexnet": [
        *(*CLOTHES, "--model", "alexnet", "--epochs", "25"),
        *("--batch-size", "512", "--learning-rate", "0.004"),
    ],
}
# Half of what is usual for CIFAR-10: clothes of Fashion-MNIST fill their images already.
MOVED = ["--augment-shift", "2", "--augment-flip", "horizontal"]
# Enough to tell a good rate from a bad one.
SHORT = [*FASHION, "--model", "alexnet", "--limit-train", "12000", "--epochs", "5"]
# At the quick recipe's rate fresh weights do not always learn in so few steps.
FEW = ["--limit-train", "1000", "--epochs", "20", "--batch-size", "32", "--learning-rate", "0.02"]
# The run of the same seed.
FROM_DIGITS = ["--start-from", "fine-tuning-digits-seed{seed}"]
STUDIES: dict[str, tuple[int, list[Setting]]] = {
    # name: (seeds, [(title, flags)])
    "notebook": (
        3,
        [
            ("lenet5", ["--recipe", "notebook", "--model", "lenet5"]),
            ("ffnn", ["--recipe", "notebook", "--model", "ffnn"]),
        ],
    ),
    "quick": (
        5,
        [
            ("lenet5", ["--recipe", "quick", "--model", "lenet5"]),
            ("ffnn", ["--recipe", "quick", "--model", "ffnn"]),
        ],
    ),
    "best": (
        5,
        [(model, ["--recipe", "best", "--model", model]) for model in ("lenet5", "ffnn")],
    ),
    # The winner of a sweep that itself used seeds 100 and 101.
    "sweep-winner": (
        5,
        [("lenet5", [*BEFORE, "--epochs", "9", "--learning-rate", "0.037702"])],
    ),
    "choose-quick": (
        1,
        [
            ("no-regularisation", [*QUICK, "--weight-decay", "0", "--label-smoothing", "0"]),
            ("weight-decay-only", [*QUICK, "--label-smoothing", "0"]),
            ("label-smoothing-only", [*QUICK, "--weight-decay", "0"]),
            ("chosen", QUICK),
        ],
    ),
    "choose-alexnet": (
        1,
        [
            (f"{optimizer} {rate}", [*SHORT, "--optimizer", optimizer, "--learning-rate", rate])
            for optimizer, rates in (
                ("momentum", ("0.01", "0.02", "0.05")),
                ("adam", ("0.0005", "0.001")),
            )
            for rate in rates
        ],
    ),
    # What a run on digits is worth to one on clothes: with few rows, and with all of them at first.
    "fine-tuning": (
        5,
        [
            ("digits", [*BEFORE, "--epochs", "3"]),
            *(
                (title + more, [*FASHION, *flags, *(FROM_DIGITS if more else [])])
                for title, flags in (
                    ("clothes, 1000 rows", FEW),
                    ("clothes, 48000 rows", ["--epochs", "1", "--learning-rate", "0.02"]),
                )
                for more in ("", ", from digits")
            ),
        ],
    ),
    "fashion-best": (3, [*CLOTHED.items()]),
    "fashion": (
        3,
        [
            (model + (", moved" if more else ""), [*FASHION, "--model", model, *more])
            for model in ("ffnn", "lenet5", "alexnet")
            for more in ([], MOVED)
        ],
    ),
}


def trained(study: str, title: str, seed: int, storage: str) -> Path:
    """The result of one of a study's runs, which is trained where it is missing."""
    name = f"{study}-{re.sub('[ ,]+', '-', title)}-seed{seed}"
    result = Path(storage) / name / "result.json"
    if not result.exists():
        given = [flag.format(seed=seed) for flag in dict(STUDIES[study][1])[title]]
        command = [sys.executable, "-m", "tuning.cli", "train", *given]
        where = ["--seed", str(seed), "--storage", storage, "--name", name]
        subprocess.run([*command, *where], check=True)
    return result


def run(study: str, storage: str) -> None:
    """Trains what is missing; writes docs/results/STUDY.json and, for figures, its histories."""
    seeds, settings = STUDIES[study]
    results, epochs, times = [], [], []
    for title, flags in settings:
        for seed in range(1, seeds + 1):
            result = trained(study, title, seed, storage)
            times.append(result.stat().st_mtime)
            results.append({"setting": title, "flags": flags, **json.loads(result.read_text())})
            with (result.parent / "history.csv").open() as stream:
                epochs += [
                    {"setting": title, "seed": seed, **row} for row in csv.DictReader(stream)
                ]
    # That of the newest run: those that were there already are not of today.
    date = datetime.datetime.fromtimestamp(max(times), datetime.UTC).date().isoformat()
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {"study": study, "date": date, "runs": results}
    (RESULTS / f"{study}.json").write_text(json.dumps(kept, indent=1) + "\n")
    with (RESULTS / f"{study}-history.csv").open("w") as stream:
        writer = csv.DictWriter(
            stream,
            ("setting", "seed", "epoch", *CURVES),
            extrasaction="ignore",
            lineterminator="\n",
        )
        writer.writeheader()
        for row in epochs:
            writer.writerow({**row, **{name: f"{float(row[name]):.6f}" for name in CURVES}})


def document(study: str) -> dict[str, Any]:
    """What is kept of a study: its date, and the result of each run."""
    return json.loads((RESULTS / f"{study}.json").read_text())


def histories(study: str, setting: str) -> dict[int, dict[str, list[float]]]:
    """The kept curves of a setting by seed, each by name with a value for each epoch."""
    curves: dict[int, dict[str, list[float]]] = {}
    with (RESULTS / f"{study}-history.csv").open() as stream:
        for row in csv.DictReader(stream):
            if row["setting"] == setting:
                run = curves.setdefault(int(row["seed"]), {name: [] for name in CURVES})
                for name in CURVES:
                    run[name].append(float(row[name]))
    return curves


def table(study: str) -> str:
    """The study's Markdown table, with date, hardware and versions below it."""
    kept = document(study)
    runs = kept["runs"]
    lines = [
        "| setting | epochs, batch, optimizer | validation accuracy | test accuracy | n "
        "| 95 % interval | before training | notebook |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting in dict.fromkeys(run["setting"] for run in runs):
        group = [run for run in runs if run["setting"] == setting]
        first = group[0]
        how = f"{first['epochs']}, {first['batch_size']}, {first['optimizer']}"
        how += f" {first['learning_rate']:g}"
        notebook = NOTEBOOK.get(setting, "") if first["dataset"] == "mnist" else ""
        lines.append(
            f"| {setting} | {how} | {spread(group, 'val_accuracy')} "
            f"| **{spread(group, 'test_accuracy')}** | {len(group)} | {interval(group)} "
            f"| {spread(group, 'baseline_accuracy')} | {notebook} |"
        )
    versions = runs[0]["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("tensorflow", "keras", "python"))
    return "\n".join(
        [
            *lines,
            "",
            "Mean ± standard deviation over n seeds, and Student's confidence interval of the mean "
            f"test accuracy; {kept['date']}, {runs[0]['device']}; "
            f"{named}. The weights with the best validation {best_by(runs)} are "
            "kept; the test set is read once, by the finished run.",
        ]
    )


def best_by(runs: list[dict]) -> str:
    """What tells the best epoch: of each setting, where they differ."""
    found = {}
    for run in runs:
        recipe = RECIPES[run["recipe"]].get(run["model"], {})
        given = dict(itertools.pairwise(run["flags"]))
        found[run["setting"]] = given.get("--best-by", recipe.get("best_by", "loss"))
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{measure} ({setting})" for setting, measure in found.items())


def spread(runs: list[dict], key: str) -> str:
    return mean_text(run[key] for run in runs)


def interval(runs: list[dict]) -> str:
    values = [run["test_accuracy"] for run in runs]
    return interval_text(mean_interval(values)) if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--storage", default="runs", help="where the runs are kept")
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.study, arguments.storage)
    print(table(arguments.study))


if __name__ == "__main__":
    main()
