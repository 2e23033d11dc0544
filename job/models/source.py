"""A user's own model: a function in a file, found and named without running anything of it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from job.errors import InputError, nearest
from job.models.builtin import MODELS

# A file or a module, and the function in it.
FORM = re.compile(
    r"(?P<where>(?:.*/)?[\w.+-]+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)"
)
FORMS = "FILE.py:FUNCTION or package.module:function"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model of the user's comes from.

    Attributes:
        name: What runs call it, wherever the file lies: `net.py:resnet`, `package.module:resnet`.
        file: The file.
        module: The module's name; empty where a file was named.
        function: Called with `image_shape` (height, width, channels) and `classes`; returns a Keras
            model.
        sha256: Of the file, as hexadecimal digits.
        text: The file's content.
    """

    name: str
    file: str
    module: str
    function: str
    sha256: str
    text: str


def is_own(model: str) -> bool:
    """Whether a model's name is that of a user's own."""
    return ":" in model


def short_name(model: str) -> str:
    """A model's name without where it comes from."""
    return model.rpartition(":")[2]


def model_name(value: Any) -> str:
    """Accepts the name of a built-in model, or where a function is that makes one."""
    name = str(value)
    if name not in MODELS and not FORM.fullmatch(name):
        raise ValueError(
            f"choose one of {', '.join(MODELS)}, or give your own as {FORMS}{nearest(name, MODELS)}"
        )
    return name


def find_source(model: str) -> Source:
    """Finds the file of a model.

    Raises:
        InputError: There is no such file, or it is no text.
    """
    form = FORM.fullmatch(model)
    if not form:
        raise InputError("--model", model, f"give your own model as {FORMS}")
    where, function = form["where"], form["function"]
    is_file = where.endswith(".py")
    file = os.path.expanduser(where) if is_file else _file_of(where)
    try:
        content = Path(file).read_bytes()
    except FileNotFoundError:
        raise InputError("--model", model, f"there is no {where}{_from_here(is_file)}") from None
    except OSError as error:
        raise InputError("--model", model, f"{file} can't be read: {error.strerror}") from None
    try:
        text = importlib.util.decode_source(content)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise InputError("--model", model, f"{file} is no Python: {error}") from None
    return Source(
        name=f"{Path(file).name if is_file else where}:{function}",
        file=os.path.abspath(file),
        module="" if is_file else where,
        function=function,
        sha256=hashlib.sha256(content).hexdigest(),
        text=text,
    )


def flag_of(source: Source | None) -> str:
    """What to type behind a command for a model that needs its file again; else nothing."""
    if source is None:
        return ""
    return " --model " + shlex.quote(f"{source.module or source.file}:{source.function}")


def search_path() -> list[str]:
    """Where modules are looked for: here, and where Python does."""
    return [os.getcwd(), *(place for place in sys.path if place)]


def _file_of(module: str) -> str:
    """The file of a module, which is not imported, nor are the packages that it is in.

    Where there is none, or a folder that is no package, a file that is not there.
    """
    nowhere = f"{module}.py"
    places: Sequence[str] | None = search_path()
    parts = module.split(".")
    for i, _ in enumerate(parts):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), places)
        if spec is None:
            return nowhere
        places = spec.submodule_search_locations
    return (spec and spec.origin) or nowhere


def _from_here(is_file: bool) -> str:
    return f" in {os.getcwd()}" if is_file else f" in {os.getcwd()} or where Python looks"
