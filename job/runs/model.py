"""The user's own model in a run or sweep: its file, where it is given, and what is kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from job.errors import InputError, JobError
from job.models.architecture import Architecture
from job.models.source import Source, find_source, is_own
from job.storage.base import Storage
from job.storage.documents import MAX_DOCUMENT_BYTES

ARCHITECTURE_FILE = "architecture.json"


def with_source(given: Mapping[str, Any]) -> tuple[Source | None, Mapping[str, Any]]:
    """Where a model comes from that is the user's own, and the settings that say so.

    Raises:
        InputError: There is no such file.
    """
    model = given.get("model")
    if not isinstance(model, str) or not is_own(model) or given.get("model_sha256"):
        return None, given
    source = find_source(model)
    return source, {**given, "model": source.name, "model_sha256": source.sha256}


def check_source(what: str, source: Source, begun: str | None) -> None:
    """Raises InputError for another file than that, by its SHA-256, which a run began with."""
    if begun is None:
        raise InputError("--model", source.file, f"{what} is of a built-in model; leave it out")
    if source.sha256 != begun:
        raise InputError(
            "--model",
            source.file,
            f"is not as it was when {what} was started (SHA-256 {begun[:12]}…, now "
            f"{source.sha256[:12]}…); leave it out to go on with the model as it was, or take "
            "another --name",
        )


def architecture_file(architecture: Architecture | None) -> dict[str, bytes]:
    """The file, by name, in which an architecture is kept; none for a built-in model."""
    return {} if architecture is None else {ARCHITECTURE_FILE: architecture.document.encode()}


def kept_architecture(
    folder: Storage, what: str, settings: Mapping[str, Any], source: Source | None
) -> Architecture | None:
    """What a run or sweep was started with, None where its model is a built-in one.

    Args:
        folder: Its folder.
        what: Run or sweep, and its name.
        settings: Its settings.
        source: The file of its model, if that was given.

    Raises:
        InputError: It has parts that the user's file defines, and that is not given.
        JobError: It is missing, or another one.
    """
    sha256 = settings.get("architecture_sha256")
    if sha256 is None:
        return None
    where = f"{folder.uri}/{ARCHITECTURE_FILE}"
    try:
        content = folder.read(ARCHITECTURE_FILE, limit=MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        raise JobError(f"{where} is missing") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise JobError(f"{where} is not what this was started with (SHA-256 differs)")
    architecture = Architecture(content.decode())
    if architecture.own_parts and source is None:
        raise InputError(
            "--model",
            settings["model"],
            f"{what} has parts that your file defines ({', '.join(architecture.own_parts)}), and "
            f"code is not kept with it; give --model FILE.py:FUNCTION again, the file of SHA-256 "
            f"{str(settings['model_sha256'])[:12]}…",
        )
    return architecture.needing(source)
