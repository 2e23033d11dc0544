"""What a benchmark needs that measures this commit beside another."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    """What git says, in this repository."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def short(commit: str) -> str:
    """A commit as tables name it."""
    return git("rev-parse", "--short", commit)


def main_of(
    about: str,
    measure: Callable[[str, int], dict[str, Any]],
    table: Callable[[], str],
    result: Path,
    rounds: int,
) -> None:
    """The command `… COMMIT [--rounds N]`, which measures and keeps, and `… --table`.

    Args:
        about: What is measured.
        measure: Measures beside a commit in so many rounds; gives the document that is kept.
        table: The kept figures as Markdown.
        result: Where they are kept.
        rounds: How many there are where none are asked for.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("before", nargs="?", help="the other commit")
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.before is None:
            parser.error("name the other commit")
        document = measure(arguments.before, arguments.rounds)
        result.write_text(json.dumps(document, indent=1) + "\n")
    print(table())
