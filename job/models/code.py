"""What a user's file defines, for a model that has parts of that.

Nothing of it is kept with a run: whoever builds such a model again gives the file.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.util
import os
import sys
from types import FunctionType, ModuleType
from typing import Any

from job.models.source import Source

FILE_MODULE = "model_of_the_user"


def module_name(source: Source) -> str:
    """What the module of a user's file is called; a file has no name of its own."""
    return source.module or FILE_MODULE


@functools.cache
def module_of(source: Source) -> ModuleType:
    """Runs a user's file, once in a process; raises what it raises."""
    spec = importlib.util.spec_from_loader(module_name(source), _Given(source))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    before = sys.path[:]
    if source.module:
        # Behind all else, and not for longer: what lies there may be called as a library is.
        sys.path.append(os.getcwd())
    try:
        # What a command answers goes to standard output, and nothing else.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def parts_of(source: Source) -> dict[str, Any]:
    """Classes and functions at the top of a user's file, by the names that Keras has for them."""
    import keras

    return {
        keras.saving.get_registered_name(value): value
        for value in vars(module_of(source)).values()
        if isinstance(value, type | FunctionType) and value.__module__ == module_name(source)
    }


class _Given(importlib.abc.ExecutionLoader):
    """Loads the text that was read once, whatever the file holds by now, or if it is not here."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source.text

    def get_filename(self, fullname: str) -> str:
        return self._source.file

    def is_package(self, fullname: str) -> bool:
        return os.path.basename(self._source.file) == "__init__.py"
