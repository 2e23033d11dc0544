"""Who may know whom: a package imports those below it only, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("job", "cluster", "tuning")
# Rooms of `job`, from the ground up; those in one line don't know each other, but for config, which
# asks for the models that there are.
ROOMS = (
    ("text", "errors", "stats", "versions", "models"),
    ("storage", "config"),
    ("data",),
    ("engine",),
    ("runs",),
    ("results",),
    ("training",),
    ("compare",),
    ("baselines",),
    ("train",),
    ("commands",),
)


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT).with_suffix("")).replace("/", "."), path


def imported(path: Path) -> Iterator[str]:
    """The modules of this project that a file imports, anywhere in it."""
    known = {name for name, _ in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            # A name in a module, or the module itself.
            yield from {name, name.rpartition(".")[0]} & known


def floor(module: str) -> tuple[int, int]:
    """How high a module stands: its package's number, and in `job` that of its room."""
    package, _, rest = module.partition(".")
    rooms = [i for i, names in enumerate(ROOMS) if rest.partition(".")[0] in names]
    return PACKAGES.index(package), rooms[0] if package == "job" and rooms else 0


def room(module: str) -> str:
    return ".".join(module.split(".")[:2]) if module.startswith("job.") else module.split(".")[0]


def test_every_room_of_job_has_its_floor():
    rooms = {name.split(".")[1] for name, _ in modules() if name.startswith("job.")}
    assert rooms - {"__init__"} == {name for names in ROOMS for name in names}


def test_a_package_knows_only_those_below_it():
    found = {
        (name, other)
        for name, path in modules()
        for other in imported(path)
        if room(other) != room(name) and floor(other) >= floor(name)
    }
    assert not found


def test_no_room_is_crowded():
    for package in PACKAGES:
        for folder in (ROOT / package, *(ROOT / package).rglob("*/")):
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(files) <= 11, folder
