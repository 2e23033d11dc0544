"""`lenet compare`: what several finished runs say of their models, and how sure that is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from job import stats
from job.compare.record import (
    Group,
    check_comparable,
    check_seeds,
    groups_of,
    open_finished,
)
from job.errors import InputError, JobError
from job.waiting import waiting

SEEDS, EXAMPLES = "seeds", "examples"


@waiting("runs to be read and compared")
def compare(names: Sequence[str], storage: str = "runs") -> dict[str, Any]:
    """Compares finished runs and baselines.

    Runs that differ by their seed alone are a group, with mean, standard deviation and a confidence
    interval of its mean. Between two models McNemar's exact test counts the test examples that one
    of them alone has right: between the two that are named, or, of more, between the best member of
    each group by validation accuracy.

    Args:
        names: At least two, each once, as for `open_finished`.
        storage: Where names are looked for.

    Returns:
        A document: `groups` in the order of the names, and `tests` of pairs.

    Raises:
        InputError: A name is none, not finished, given twice, or of another data set; or it is
            alone.
        JobError: What a run left can't be trusted.
    """
    if len(names) < 2:
        raise InputError("RUN", names[0] if names else None, "name two runs or more to compare")
    entries = [open_finished(name, storage) for name in names]
    places = [entry.folder and entry.folder.uri for entry in entries]
    for entry, place in zip(entries, places, strict=True):
        if places.count(place) > 1:
            raise InputError("RUN", entry.name, "is named twice; name different ones")
    check_comparable(entries)
    for entry in entries:
        if (entry.predictions.labels != entries[0].predictions.labels).any():
            raise JobError(f"{entry.name} and {entries[0].name} know other test examples")
    groups = groups_of(entries)
    check_seeds(groups)
    models = entries if len(entries) == 2 else [group.best for group in groups]
    pairs = list(itertools.combinations(models, 2))
    found = [stats.mcnemar(a.predictions.right, b.predictions.right) for a, b in pairs]
    adjusted = stats.holm([test.p_value for test in found])
    return {
        "dataset": entries[0].dataset.name,
        "test_examples": len(entries[0].predictions.labels),
        "level": stats.LEVEL,
        "groups": [group_document(group) for group in groups],
        "tests": [
            {
                "first": a.name,
                "second": b.name,
                "only_first_right": test.only_first,
                "only_second_right": test.only_second,
                "p_value": test.p_value,
                "p_holm": p_holm,
            }
            for (a, b), test, p_holm in zip(pairs, found, adjusted, strict=True)
        ],
    }


def group_document(group: Group) -> dict[str, Any]:
    """A group's figures.

    `interval_of` says what would vary: other seeds, or where there is one member only, other test
    examples.
    """
    accuracies = group.values("test_accuracy")
    if len(accuracies) > 1:
        interval, kind = stats.mean_interval(accuracies), SEEDS
    else:
        right = group.first.predictions.right
        interval, kind = stats.share_interval(int(right.sum()), len(right)), EXAMPLES
    mean, sd = stats.mean_sd(accuracies)
    return {
        "title": group.title,
        "model": group.first.model,
        "runs": [member.name for member in group.members],
        "seeds": [member.seed for member in group.members],
        "n": len(group.members),
        "train_rows": group.first.train_rows,
        "val_accuracy": group.values("val_accuracy"),
        "test_accuracy": accuracies,
        "mean": mean,
        "sd": sd,
        "interval": list(interval),
        "interval_of": kind,
    }


def p_text(p_value: float) -> str:
    """A p-value with four decimals below 0.1 and two from there on; `< 0.0001` for any below."""
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.4f}" if p_value < 0.1 else f"{p_value:.2f}"


def print_comparison(document: dict[str, Any]) -> None:
    """The comparison as tables for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    level = f"{document['level']:.0%}"
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for column in ("n", "validation", "test accuracy", f"{level} interval", "over"):
        table.add_column(column, justify="right", no_wrap=True)
    for group in document["groups"]:
        table.add_row(
            *(group["title"], str(group["n"]), stats.mean_text(group["val_accuracy"])),
            *(
                stats.mean_text(group["test_accuracy"]),
                stats.interval_text(group["interval"]),
                group["interval_of"],
            ),
        )
    console.print(table)
    console.print(
        f"\n{document['dataset']}, {document['test_examples']:,} test examples; mean ± standard "
        "deviation over n seeds. Interval over seeds: Student's, of the mean; over examples: "
        "Wilson's.",
        markup=False,
        soft_wrap=True,
    )
    if not document["tests"]:
        return
    console.print("\nMcNemar's exact test: the examples that one of two has right, not the other\n")
    tests = Table(box=None, pad_edge=False)
    for column in ("first", "second"):
        tests.add_column(column, overflow="fold")
    for column in ("first only", "second only", "p", "p (Holm)"):
        tests.add_column(column, justify="right", no_wrap=True)
    for test in document["tests"]:
        tests.add_row(
            *(test["first"], test["second"]),
            *(str(test["only_first_right"]), str(test["only_second_right"])),
            *(p_text(test["p_value"]), p_text(test["p_holm"])),
        )
    console.print(tests)
