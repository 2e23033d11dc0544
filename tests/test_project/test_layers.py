"""Who may know whom: a package imports those below it only, inside functions too."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("job", "cluster", "tuning")
# Rooms of each, from the ground up; those in one line don't know each other.
ROOMS = {
    "job": (
        ("public", "text", "errors", "stats", "versions"),
        ("extras",),
        ("models",),
        ("reasons", "waiting"),
        ("storage", "config"),
        ("data",),
        ("engine",),
        ("runs",),
        ("results",),
        ("training",),
        ("trackers",),
        ("compare",),
        ("baselines",),
        ("train",),
        ("commands",),
    ),
    "cluster": (
        ("ray_private", "packages"),
        ("tf_config", "connection", "capacity"),
        ("files",),
        ("tasks", "autoscaling"),
        ("workers", "doctor"),
        ("training",),
        ("commands",),
    ),
    "tuning": (
        ("config",),
        ("records",),
        ("space",),
        ("journal",),
        ("conductor",),
        ("tracking",),
        ("display",),
        ("trials",),
        ("sweep", "report"),
        ("commands",),
        ("cli",),
    ),
}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT).with_suffix("")).replace("/", "."), path


@functools.cache
def known() -> frozenset[str]:
    return frozenset(name for name, _ in modules())


def imported(path: Path) -> Iterator[str]:
    """The modules of this project that a file imports or names in a string, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]]
        for name in names:
            # A name in a module, or the module itself.
            yield from {name, name.rpartition(".")[0]} & known()


def floor(module: str) -> tuple[int, int]:
    """How high a module stands: its package's number, and that of its room. What a package offers
    comes from all of its rooms."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if name == "__init__":
        return PACKAGES.index(package), len(ROOMS[package])
    return PACKAGES.index(package), next(i for i, row in enumerate(ROOMS[package]) if name in row)


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file that reach for something of Ray's that is not public."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            first, *others = name.split(".")
            if first == "ray" and any(o[0] == "_" and o[:2] != "__" for o in others):
                yield node.lineno, name


def test_what_is_private_in_ray_is_in_one_file():
    used = {str(path.relative_to(ROOT)): dict(private_names(path)) for _, path in modules()}
    inside = used.pop("cluster/ray_private.py")
    assert not {path: lines for path, lines in used.items() if lines}
    assert 0 < len(inside) <= 8


def test_every_room_has_its_floor():
    rooms = {tuple(name.split(".")[:2]) for name, _ in modules()}
    wanted = {(package, name) for package in ROOMS for row in ROOMS[package] for name in row}
    assert rooms - {(package, "__init__") for package in PACKAGES} == wanted


def test_a_room_knows_only_those_below_it():
    looks_up = {
        (name, other)
        for name, path in modules()
        for other in imported(path)
        if other.split(".")[:2] != name.split(".")[:2] and floor(other) >= floor(name)
    }
    assert not looks_up


def test_no_room_is_crowded():
    for package in (*PACKAGES, "tests", "benchmarks", "docs"):
        for folder in (ROOT / package, *(ROOT / package).rglob("*/")):
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(files) <= 11, folder
