"""What runs are called: names that are made, and words that stand for one."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from job.config.fields import checked_place, run_name
from job.errors import InputError, nearest
from job.runs.folder import usable
from job.storage.base import Storage
from job.storage.documents import read_document
from job.storage.open import open_storage

# What stands for the newest, unless one is called so.
LAST = "last"
# Requests to a store at one time: each waits for its answer, and threads cost little.
AT_ONCE = 32
# Of names that are too many.
SHOWN = 5
# When something was begun whose file does not say: it is never the newest of several.
UNKNOWN = float("-inf")

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What a word stands for: its whole name, its folder, and the names of what is in that."""

    name: str
    folder: Storage
    content: list[str]


def find(word: str, storage: str, marks: Mapping[str, str], *, field: str = "RUN") -> Found:
    """Finds what a user calls by its name below a storage root, or by a path, which has a `/`.

    Where nothing has that name, `last` stands for the newest, and the beginning of one name for it.

    Args:
        word: What the user said.
        storage: The root.
        marks: What each file that marks a folder makes of it, in words.
        field: What errors call the word.

    Returns:
        What was found; its content is empty where there is nothing.

    Raises:
        InputError: It is no name, several begin so, or the place can't be read.
    """
    if "/" in word:
        folder = open_storage(checked_place(field, word), option=field)
        with usable(folder.uri, field):
            return Found(word, folder, folder.list())
    try:
        root = open_storage(storage)
        folder = root.at(run_name(word))
    except ValueError as problem:
        raise InputError(field, word, str(problem)) from None
    with usable(folder.uri):
        content = folder.list()
        meant = None if content else _meant(word, root, marks, field)
        if meant is None:
            return Found(word, folder, content)
        folder = root.at(meant)
        return Found(meant, folder, folder.list())


def _meant(word: str, root: Storage, marks: Mapping[str, str], field: str) -> str | None:
    names = [name for name in root.list() if word == LAST or name.startswith(word)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = pool.map(lambda name: _begun(root.at(name), marks), names)
        found = [(*when, name) for when, name in zip(begun, names, strict=True) if when]
    if word == LAST:
        found = sorted(found)[-1:]
    if len(found) > 1:
        shown = ", ".join(name for *_, name in found[:SHOWN])
        more = ", …" if len(found) > SHOWN else ""
        raise InputError(field, word, f"{len(found)} begin so: {shown}{more}")
    for _, mark, name in found:
        log.warning("%s is %s %s", word, marks[mark], name)
        return name
    return None


def _begun(folder: Storage, marks: Mapping[str, str]) -> tuple[float, str] | None:
    """When what is in a folder was begun, and its mark; None where it has none of the marks."""
    for mark in marks:
        try:
            created = float(read_document(folder, mark)["created"])
            return (created if math.isfinite(created) else UNKNOWN), mark
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except (OSError, ArithmeticError, ValueError, KeyError, TypeError):
            # It can't be read, but is there: its name has another beginning for none.
            return UNKNOWN, mark
    return None


def like(word: str, storage: str) -> str:
    """`; did you mean NAME?` for what is called nearly so below a storage root, or nothing."""
    return "" if "/" in word else nearest(word, open_storage(storage).list())


def in_full(word: str | None, storage: str, marks: Mapping[str, str]) -> str | None:
    """The name that a setting's word stands for: that, and not the word, is kept with a run."""
    if word is None or "/" in word or word.endswith(".keras"):
        return word
    return find(word, storage, marks, field="--start-from").name


def is_word_for(word: object, name: object) -> bool:
    """Whether a word can have stood for a name when a run began."""
    if not isinstance(word, str) or not isinstance(name, str):
        return False
    return word == LAST or name.startswith(word)


def made_name(what: str, storage: str) -> str:
    """A name that nothing has yet below a storage root: what it is, when, and two random bytes.

    Whoever writes first has it, as with any name.
    """
    root = open_storage(storage)
    while True:
        name = f"{what}-{time.strftime('%m%d-%H%M')}-{secrets.token_hex(2)}"
        with usable(root.uri):
            if not root.at(name).list():
                return name
