"""Fashion-MNIST: our models with and without augmentation, beside published figures.

    python -m benchmarks.accuracy.fashion run      # what is missing; finished runs are kept
    python -m benchmarks.accuracy.fashion table    # the tables, from docs/results

The runs are those of the study `fashion` (studies.py): about forty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.accuracy import studies
from job import stats
from job.compare.compare import p_text

STUDY = "fashion"
COMPARED = studies.RESULTS / "fashion-compared.json"
PUBLISHED = studies.RESULTS / "fashion_published.json"
MOVED = ", moved"
# Each model against itself with augmentation, and the models against each other.
PAIRS = [
    *((model, model + MOVED) for model in ("ffnn", "lenet5", "alexnet")),
    ("ffnn", "lenet5"),
    ("lenet5", "alexnet"),
]


def run(storage: str) -> None:
    """Trains what is missing, and tests what differs."""
    studies.run(STUDY, storage)
    names: dict[str, list[str]] = {}
    for result in studies.document(STUDY)["runs"]:
        names.setdefault(result["setting"], []).append(result["name"])
    comparisons = [
        {"first": first, "second": second, **compared(names[first] + names[second], storage)}
        for first, second in PAIRS
    ]
    COMPARED.write_text(json.dumps(comparisons, indent=1) + "\n")


def compared(names: list[str], storage: str) -> dict[str, Any]:
    """McNemar's test between the two models that these runs are seeds of."""
    command = [sys.executable, "-m", "tuning.cli", "compare", *names, "--storage", storage]
    done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE)
    (test,) = json.loads(done.stdout)["tests"]
    return {name: test[name] for name in ("only_first_right", "only_second_right", "p_value")}


def table() -> str:
    """Ours beside theirs, as Markdown."""
    kept = studies.document(STUDY)
    published = json.loads(PUBLISHED.read_text())
    lines = [
        "| beside | model | augmentation | training accuracy | test accuracy | n | 95 % interval |",
        "|---|---|---|---|---|---|---|",
    ]
    settings = list(dict.fromkeys(run["setting"] for run in kept["runs"]))
    for model in (*dict.fromkeys(name.removesuffix(MOVED) for name in settings), ""):
        for setting in settings:
            if setting.removesuffix(MOVED) != model:
                continue
            group = [run for run in kept["runs"] if run["setting"] == setting]
            first = group[0]
            moves = []
            if first["augment_shift"]:
                moves.append(f"shift {first['augment_shift']}")
            if first["augment_flip"] != "none":
                moves.append("flip")
            curves = studies.histories(STUDY, setting).values()
            learned = stats.mean_text(curve["accuracy"][-1] for curve in curves)
            lines.append(
                f"| {model} | **this project**, {first['parameters']:,} parameters, "
                f"{first['epochs']} epochs | {', '.join(moves) or 'none'} "
                f"| {learned} | **{studies.spread(group, 'test_accuracy')}** | {len(group)} "
                f"| {studies.interval(group)} |"
            )
        for row in published["rows"]:
            if row["beside"] == model:
                lines.append(
                    f"| {model} | {row['what']} | {row['augmentation']} "
                    f"| | {row['test_accuracy']:.1%} | | |"
                )
    return "\n".join(
        [
            *lines,
            "",
            "Ours: mean ± standard deviation over n seeds, Student's interval of the mean; in "
            "training the accuracy of the last epoch, with dropout and on moved images; 48,000 "
            f"training rows, test set read once by each finished run; {kept['date']}. Theirs: as "
            f"submitted to the data set's authors, who did not verify them "
            f"([table]({published['source']})); one figure each.",
        ]
    )


def tests_table() -> str:
    """McNemar's tests, as Markdown."""
    lines = [
        "| first | second | only the first is right | only the second | p | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    tests = json.loads(COMPARED.read_text())
    for test, adjusted in zip(tests, stats.holm([t["p_value"] for t in tests]), strict=True):
        lines.append(
            f"| {test['first']} | {test['second']} | {test['only_first_right']} "
            f"| {test['only_second_right']} | {p_text(test['p_value'])} | **{p_text(adjusted)}** |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "McNemar's exact test on the 10,000 test examples; of each model the seed with the "
            "best validation accuracy. Holm: for so many tests at once.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--storage", default="runs", help="where the runs are kept")
    arguments = parser.parse_args()
    if arguments.action == "run":
        run(arguments.storage)
    print(table(), tests_table(), sep="\n\n")


if __name__ == "__main__":
    main()
