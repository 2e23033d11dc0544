"""Reads the part of the Dockerfile language that ours uses."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from pathlib import Path

KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "HEALTHCHECK", "CMD"}


@dataclasses.dataclass
class Stage:
    """An image on the way: its base, its name, and the steps after `FROM` in order."""

    base: str
    name: str | None
    steps: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read_stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile.

    Raises:
        ValueError: An instruction that is not understood.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word not in KNOWN or (not stages and word != "FROM"):
            raise ValueError(f"not understood: {line}")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name or None))
        else:
            stages[-1].steps.append((word, rest.strip()))
    return stages


def command_of(text: str) -> list[str]:
    """The words of a `CMD` or `HEALTHCHECK`, whose form is JSON or else for a shell."""
    text = re.sub(r"^(--\S+\s+)*(CMD\s+)?", "", text)
    return json.loads(text) if text.startswith("[") else ["sh", "-c", text]


def context(folder: Path) -> list[str]:
    """The files that `docker build` sends, by `.dockerignore`: the last rule that fits wins."""
    rules = [
        (line.removeprefix("!").strip("/"), line.startswith("!"))
        for line in (folder / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    top = [path for path in folder.iterdir() if _kept(path.name, rules)]
    files = [path for path in top if path.is_file()]
    files += [p for path in top if path.is_dir() for p in path.rglob("*") if p.is_file()]
    names = [str(path.relative_to(folder)) for path in files]
    return sorted(name for name in names if _kept(name, rules))


def _kept(name: str, rules: list[tuple[str, bool]]) -> bool:
    kept = True
    # A rule for a folder holds for all below it.
    ways = [name.rsplit("/", cut)[0] for cut in range(name.count("/") + 1)]
    for pattern, keeps in rules:
        anywhere = pattern.removeprefix("**/")
        for way in ways:
            if fnmatch.fnmatchcase(way, pattern) or (
                anywhere != pattern and way.rsplit("/", 1)[-1] == anywhere
            ):
                kept = keeps
    return kept
