"""The errors that docs/troubleshooting.md lists: read from the source, by the rooms they are in.

What they mean and what to do is written on the page, group by group. A message in no group ends
`make docs`: enter its module in `GROUPS`, and say on the page what is to be done.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from job import reasons

ROOT = Path(__file__).parents[2]
# Groups of the page, each with the modules whose messages it lists; the longest beginning counts.
GROUPS = {
    "settings": ("job/config", "tuning/config", "job/engine/engine", "job/extras"),
    "names": ("job/runs/folder", "job/commands/runs", "job/runs/listing"),
    "runs": ("job/runs", "job/train", "job/storage/documents"),
    "checkpoints": ("job/storage/checkpoints", "job/runs/state", "job/training/attempt"),
    "storage": ("job/storage", "job/training/writer"),
    "data": ("job/data", "job/commands/data"),
    "pictures": ("job/data/convert", "job/data/foreign"),
    "model": ("job/models", "job/training/building", "job/engine/twin", "job/commands/models"),
    "start": ("job/runs/start", "job/training/beginning"),
    "training": ("job/training/loop",),
    "gpu": ("job/engine/accelerator", "job/config/xla"),
    "results": ("job/results", "job/compare", "job/baselines", "job/commands/export"),
    "cluster": ("cluster",),
    "sweeps": ("tuning",),
}
# Besides our own: errors whose text one of ours takes over, or a warning.
TAKEN_OVER = ("ValueError", "FileNotFoundError", "UnfitError", "SourceError", "CheckpointError")
TAKEN_OVER += ("SupersededError", "DisagreementError")
# Errors of these modules tell their caller, and nobody else.
UNHEARD = ("job/engine/arrays", "job/engine/engine", "job/engine/scoring", "job/stats")
UNHEARD += ("job/storage/base", "job/results/card")
# Functions that put the reason of an error into words.
IN_WORDS = {
    ("job/storage/s3", "_reason"),
    ("job/config/xla", "_problem"),
    ("job/engine/twin", "_problem"),
    ("job/engine/accelerator", "likely_causes"),
    ("job/engine/accelerator", "driver_problem"),
    ("cluster/workers/launch", "_explanation"),
    ("tuning/sweep", "_why_nobody_won"),
}
HOLE = "…"


def listed(group: str) -> str:
    """The messages of a group, as a block of text."""
    return "\n".join(["```text", *sorted(messages()[group]), "```"])


def of_the_system() -> str:
    """What is advised for each error of the operating system and of a library, as a table."""
    rows: dict[str, list[str]] = defaultdict(list)
    for number, remedy in reasons.BY_NUMBER.items():
        rows[remedy].append(os.strerror(number))
    for _, name, library, remedy in reasons.LIBRARIES:
        rows[remedy].append(f"{library}'s {name.rpartition('.')[2]}")
    head = ["| what is said | what to do |", "|---|---|"]
    return "\n".join([*head, *(f"| {'; '.join(said)} | {do} |" for do, said in rows.items())])


@functools.cache
def messages() -> dict[str, set[str]]:
    """Every message by its group, with `…` for what is filled in."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in trees():
        if said := set(messages_of(module)):
            found[group_of(module)] |= said
    return found


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The source of each module, by its name in `GROUPS`, such as `job/data/files`."""
    return {
        path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(path.read_text())
        for package in ("job", "cluster", "tuning")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def group_of(module: str) -> str:
    """The group of a module's messages. Raises KeyError where there is none."""
    groups = {beginning: group for group, modules in GROUPS.items() for beginning in modules}
    while module not in groups and "/" in module:
        module = module.rpartition("/")[0]
    return groups[module]


def messages_of(module: str) -> Iterator[str]:
    """The messages of one module that say more than what is filled in."""
    known = constants(module)
    heard = {*own_errors(), *(() if module in UNHEARD else TAKEN_OVER)}
    for node in ast.walk(trees()[module]):
        said: Iterable[str] = ()
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in heard and node.args:
            said = [message(node, known)]
        elif isinstance(node, ast.FunctionDef) and (module, node.name) in IN_WORDS:
            said = sentences(node, known)
        # What begins otherwise is a part of a sentence.
        spoken = (text.partition("\n")[0] for text in said)
        yield from (text for text in spoken if re.match(r"[^ ;,].*[a-z]{2,} \S", text))


@functools.cache
def own_errors() -> frozenset[str]:
    """The names of JobError and of all that derive from it."""
    found = {"JobError"}
    classes = [n for tree in trees().values() for n in tree.body if isinstance(n, ast.ClassDef)]
    while more := {n.name for n in classes if found & {ast.unparse(b) for b in n.bases}} - found:
        found |= more
    return frozenset(found)


def message(call: ast.Call, known: Mapping[str, str]) -> str:
    """What an error says: `FIELD 'VALUE': PROBLEM` of three arguments, else the first one.

    Nothing where the problem is another error's.
    """
    if len(call.args) < 3:
        return filled(call.args[0], known)
    field, value, problem = (filled(argument, known) for argument in call.args[:3])
    is_none = isinstance(call.args[1], ast.Constant) and call.args[1].value is None
    shown = "" if is_none else f" '{value}'"
    return f"{field}{shown}: {problem}" if re.search("[a-z]", problem) else ""


def sentences(function: ast.FunctionDef, known: Mapping[str, str]) -> Iterator[str]:
    """What a function says in words, without its docstring."""
    body = ast.Module(function.body[1:], [])
    whole = [node for node in ast.walk(body) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in whole for part in node.values}
    for node in ast.walk(body):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in inside:
            yield filled(node, known)


def filled(node: ast.expr, known: Mapping[str, str]) -> str:
    """An expression as text: what is known only when it runs is a hole."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(filled(part, known) for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)) | ast.Name(id=name):
            return known.get(name, HOLE)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return filled(left, known) + filled(right, known)
        case ast.Call(func=ast.Name(id="flag"), args=[name]):
            return f"--{filled(name, known).replace('_', '-')}"
    return HOLE


@functools.cache
def constants(module: str) -> Mapping[str, str]:
    """The texts that a module names at its top, also those that it takes from others."""
    found: dict[str, str] = {}
    for node in trees()[module].body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name] = text
            case ast.ImportFrom(module=str(other), names=names):
                path = other.replace(".", "/")
                theirs = constants(path) if path in trees() else {}
                found |= {n.name: theirs[n.name] for n in names if n.name in theirs}
    return found
