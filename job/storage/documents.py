"""JSON documents in a place where things are kept."""

from __future__ import annotations

import json
from typing import Any

from job.storage.base import Storage

MAX_DOCUMENT_BYTES = 1 << 24


def to_json(document: dict[str, Any]) -> bytes:
    """A document as it is kept. NaN is not JSON: better to fail here than in whoever reads it."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def read_document(storage: Storage, name: str) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError, naming what is wrong, for anything else."""
    try:
        document = json.loads(storage.read(name, limit=MAX_DOCUMENT_BYTES))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document
