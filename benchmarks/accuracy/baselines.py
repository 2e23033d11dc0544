"""Classical methods beside the nets, on one split: figures, and tests of their differences.

    python -m benchmarks.accuracy.baselines run  # what is missing; what is finished is kept
    python -m benchmarks.accuracy.baselines table  # their tables, from docs/results/baselines.json

The nets are those of the study `quick` (studies.py), with its seeds and names. The whole takes
about a quarter of an hour on two cores, of which the methods take two minutes and the nets the
rest.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from job import stats
from job.baselines.table import COLUMNS, note_of
from job.compare.compare import p_text

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "baselines.json"
STUDY = "quick"
MODELS = ("ffnn", "lenet5")
SEEDS = 3
# Of those that are tested on each other, the best of their kind.
TESTED = ("knn-gradients", "svm-deskewed", "svm-gradients")
# What the notebook says of them.
CLAIM = 0.99


def run(storage: str) -> None:
    """Trains what is missing and writes docs/results/baselines.json."""
    names = [f"{STUDY}-{model}-seed{seed}" for model in MODELS for seed in range(1, SEEDS + 1)]
    for name in names:
        _, model, seed = name.split("-")
        if not (Path(storage) / name / "result.json").exists():
            flags = ["--recipe", STUDY, "--model", model, "--seed", seed.removeprefix("seed")]
            lenet("train", *flags, "--name", name, "--storage", storage)
    figures = lenet("baselines", *names, "--storage", storage)
    methods = [f"{storage}/baselines-mnist/{name}" for name in TESTED]
    tests = lenet("compare", *names, *methods, "--storage", storage)
    document = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "figures": figures,
        "comparison": tests,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


def lenet(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tuning.cli", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def table() -> str:
    """The figures as a Markdown table, with what they say of the notebook's 99 %."""
    document = json.loads(RESULTS.read_text())
    figures = document["figures"]
    lines = [
        f"| {' | '.join(COLUMNS)} | 95 % interval | 99 %? |",
        f"|{'---|' * (len(COLUMNS) + 2)}",
    ]
    for row in figures["rows"]:
        low, high = interval = interval_of(row["test_accuracy"], figures["test_examples"])
        verdict = "yes" if low >= CLAIM else "no" if high < CLAIM else "about"
        cells = [text(row) for text in COLUMNS.values()]
        cells += [stats.interval_text(interval), f"**{verdict}**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{document['date']}; {note_of(figures)} Seconds of wall time, means over n; two "
            "methods were in training at a time. Interval: of the mean over seeds (Student), for "
            "n = 1 of the accuracy on other test examples (Wilson's). 99 %?: whether the "
            "interval is above, below, or holds it.",
        ]
    )


def interval_of(accuracies: list[float], examples: int) -> stats.Interval:
    """As `lenet compare` gives it."""
    if len(accuracies) > 1:
        return stats.mean_interval(accuracies)
    return stats.share_interval(round(accuracies[0] * examples), examples)


def tests_table() -> str:
    """McNemar's tests as a Markdown table."""
    document = json.loads(RESULTS.read_text())["comparison"]
    titles = {run: group["title"] for group in document["groups"] for run in group["runs"]}
    lines = [
        "| first | second | only the first is right | only the second | p | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for test in document["tests"]:
        names = [titles[test[side]] for side in ("first", "second")]
        counts = [str(test[f"only_{side}_right"]) for side in ("first", "second")]
        p_values = [p_text(test["p_value"]), f"**{p_text(test['p_holm'])}**"]
        lines.append(f"| {' | '.join([*names, *counts, *p_values])} |")
    return "\n".join(
        [
            *lines,
            "",
            f"McNemar's exact test on {document['test_examples']:,} test examples; of a net the "
            "seed with the best validation accuracy. Holm: for so many tests at once.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--storage", default="runs", help="where runs and methods are kept")
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.storage)
    print(table(), tests_table(), sep="\n\n")


if __name__ == "__main__":
    main()
