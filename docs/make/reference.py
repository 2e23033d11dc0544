"""docs/reference.md: every command's `--help`, and the docstrings of what a program imports.

`python -m docs.make.pages` writes it. Docstrings are read without importing the modules, so that
it takes no TensorFlow.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

import cluster
import job
import tuning
from tuning.cli import cli

ROOT = Path(__file__).parents[2]
WIDTH = 100
HEAD = """\
# Reference

Made by `make docs` from the commands' `--help` and the docstrings. How things fit together:
[concepts.md](concepts.md).
"""
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)
WHOLE = ("Returns", "Yields")
Definition = ast.FunctionDef | ast.ClassDef


def page() -> str:
    return "\n".join([HEAD, "## Commands\n", *commands(), "## Python\n", *python()])


def commands() -> Iterator[str]:
    """The help of `lenet` and of each of its commands."""
    above = click.Context(cli, info_name="lenet", terminal_width=WIDTH, **cli.context_settings)
    yield f"```text\n{cli.get_help(above)}\n```\n"
    for name in cli.list_commands(above):
        command = cli.get_command(above, name)
        context = click.Context(command, info_name=name, parent=above)
        yield f"### lenet {name}\n\n```text\n{command.get_help(context)}\n```\n"


def python() -> Iterator[str]:
    """What the packages offer, module by module. Raises KeyError where one is gone."""
    for module, names in offers().items():
        path = ROOT / (module.replace(".", "/") + ".py")
        known = {n.name: n for n in ast.parse(path.read_text()).body if isinstance(n, Definition)}
        yield f"### {module}\n"
        for name in names:
            yield from described(known[name])


def offers() -> dict[str, list[str]]:
    """The public names of each module that has some, as a program meets them."""
    found: dict[str, list[str]] = {}
    for package in (cluster, job, tuning):
        for name, module in package.PUBLIC.items():
            found.setdefault(module, []).append(name)
    return found


def described(node: Definition, owner: str = "") -> Iterator[str]:
    """A definition with its docstring, and a class's public methods that have one."""
    yield f"```python\n{signature(node, owner)}\n```\n"
    yield text(ast.get_docstring(node))
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if (
                isinstance(member, ast.FunctionDef)
                and not member.name.startswith("_")
                and ast.get_docstring(member)
            ):
                yield from described(member, f"{node.name}.")


def signature(node: Definition, owner: str) -> str:
    """As it is called: `name(arguments) -> result`; one argument a line where it is long."""
    if isinstance(node, ast.ClassDef):
        made_by = [m for m in node.body if getattr(m, "name", None) == "__init__"]
        if not made_by:
            return f"class {node.name}"
        arguments, before, result = made_by[0].args, f"class {node.name}", ""
    else:
        arguments, before = node.args, f"{owner}{node.name}"
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        if any(getattr(mark, "id", "") == "property" for mark in node.decorator_list):
            return f"{before}{result}"
    if owner or isinstance(node, ast.ClassDef):
        arguments.args = [a for a in arguments.args if a.arg not in ("self", "cls")]
    parts = [*parts_of(arguments)]
    line = f"{before}({', '.join(parts)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{before}(", *(f"    {part}," for part in parts), f"){result}"])


def parts_of(arguments: ast.arguments) -> Iterator[str]:
    plain = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(plain, defaults, strict=True):
        yield shown(argument, default)
    if arguments.vararg:
        yield f"*{shown(arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield shown(argument, default)


def shown(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def text(docstring: str) -> str:
    """A docstring as Markdown: its sections become lists."""
    summary, *rest = SECTION.split(docstring)
    lines = [summary.strip(), ""]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        lines.append(f"*{title}*\n")
        body = inspect.cleandoc(body)
        # What is returned is one text; of the others, each line that is not indented is an entry.
        for entry in [body] if title in WHOLE else re.split(r"\n(?=\S)", body):
            name, colon, meaning = entry.partition(":")
            words = " ".join(meaning.split()) if colon else ""
            is_named = colon and re.fullmatch(r"[\w, *`./]+", name)
            lines.append(f"- `{name}`: {words}" if is_named else f"- {' '.join(entry.split())}")
        lines.append("")
    return "\n".join(lines)
