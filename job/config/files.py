"""Settings in files: TOML, YAML, or the `config.json` of a run."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from job.config.config import FIELDS
from job.config.fields import checked_value, flag
from job.config.strict_yaml import StrictLoader
from job.errors import InputError, nearest
from job.reasons import text_of

# Of a run's own settings these are its alone.
NOT_ANOTHERS = ("name", "storage")
READERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": lambda content: yaml.load(content, Loader=StrictLoader),
    ".yml": lambda content: yaml.load(content, Loader=StrictLoader),
    ".json": lambda content: json.loads(content, object_pairs_hook=_once_each),
}


def read_document(option: str, path: str, suffixes: tuple[str, ...]) -> Any:
    """What a file of one of these kinds holds.

    Raises:
        InputError: It is of no such kind, or can't be read; the message names the option.
    """
    file = Path(path)
    if file.suffix not in suffixes:
        kinds = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise InputError(option, path, f"name a {kinds} file")
    try:
        return READERS[file.suffix](file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(option, path, f"can't be read: {text_of(error)}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(option, path, f"is no valid {file.suffix[1:]}: {reason}") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"key {key!r} stands twice")
    return dict(pairs)


def read_settings(
    path: str, fields: Mapping[str, dataclasses.Field], but: Collection[str] = ()
) -> dict[str, Any]:
    """The settings in a file, by field name; words may be joined by `-` as well.

    Args:
        path: The file.
        fields: Those that there are.
        but: Those that are not taken where it is the `config.json` of a run.

    Raises:
        InputError: The file can't be read, or something in it is no setting or no value of it.
    """
    document = read_document("--config", path, (".toml", ".yaml", ".yml", ".json"))
    is_of_run = isinstance(document, dict) and {"created", "config"} == document.keys()
    if is_of_run:
        document = document["config"]
    if not isinstance(document, dict):
        raise InputError("--config", path, "holds no settings by name")
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        field = fields.get(name)
        if is_of_run and name in FIELDS:
            if field is None or field.metadata["hidden"] or name in (*NOT_ANOTHERS, *but):
                continue
        elif field is None or field.metadata["hidden"]:
            known = [k for k, one in fields.items() if not one.metadata["hidden"]]
            raise InputError(f"{path}: {key}", None, f"no such setting{nearest(name, known)}")
        if name in found:
            raise InputError(f"{path}: {key}", None, "stands twice; leave one of them out")
        if value is not None:
            # As a setting has it: YAML makes a date of a name such as 2026-11-27.
            found[name] = checked_value(f"{path}: {flag(name)[2:]}", value, field)
    return found
