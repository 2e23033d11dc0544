"""Folders with a name: that of a run, of a study of baselines, of a sweep.

A command finds its folder before it writes anything, and then holds it, alone, until it is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from job.config.config import FIELDS
from job.config.fields import check_given, checked_place
from job.data.examples import dataset_at
from job.errors import InputError
from job.reasons import reason_of
from job.storage.base import LockedError, Storage, StoreError
from job.storage.documents import to_json
from job.storage.open import open_storage

# Of what `ray job submit --working-dir` is given, Ray makes a folder of such a name on the head.
RAYS_COPY = "/working_dir_files/_ray_pkg_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What a folder holds.

    Attributes:
        noun: What it is, in errors.
        verb: The command that makes and continues it.
        shown: That which shows a finished one.
        busy: What its holder does, in errors.
        mark: The file that makes a folder one of this kind; written first.
        end: The file that marks a finished one; None where each of its parts has one.
        first: Its folders that go first when it is replaced, in this order: what would be wrong, or
            could not be read, beside less than all of the others.
    """

    noun: str
    verb: str
    shown: str
    busy: str
    mark: str
    end: str | None
    first: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder and its place.

    Attributes:
        kind: What it holds.
        name: Its name.
        place: The storage in which it is, as a user would write it.
        storage: Its content.
        is_new: Nothing has been written yet.
        replaces: It holds an older one that goes away when this one starts.
    """

    kind: Kind
    name: str
    place: str
    storage: Storage
    is_new: bool = False
    replaces: bool = False

    @property
    def command(self) -> str:
        """What to type to continue."""
        return f"lenet {self.kind.verb} --name {self.name}{_flag_of(self.place)}"

    def check_free(self) -> None:
        """Raises InputError, naming it, where another process on this disk holds the folder.

        In an object store only time tells whether a holder still lives.
        """
        holder = None if self.storage.is_remote else self.storage.holder()
        if holder is not None:
            raise self._taken(holder)

    @contextlib.contextmanager
    def claimed(
        self,
        document: dict[str, Any],
        files: Mapping[str, bytes] | None = None,
        *,
        lock: bool = True,
    ) -> Iterator[None]:
        """Holds the folder for the time of the block.

        Args:
            document: What a new one is marked with.
            files: What a new one has from its begin.
            lock: Keep all others out; without it another lock has to.

        Raises:
            InputError: Another process holds it, or did since it was found.
        """
        try:
            with self.storage.locked() if lock else contextlib.nullcontext():
                self._begin(document, files or {})
                yield
        except LockedError as holder:
            raise self._taken(holder) from holder

    def _begin(self, document: dict[str, Any], files: Mapping[str, bytes]) -> None:
        content = self.storage.list()
        taken = bool(content) if self.is_new else self.kind.end in content
        if taken and not self.replaces:
            raise InputError(
                "--name", self.name, "another process used this name just now; try again"
            )
        if not self.is_new:
            return
        # Cut off in between, an older one that is replaced can be continued: as it is no longer
        # finished, from what is left of it.
        first = [name for name in (self.kind.end, *self.kind.first) if name in content]
        for name in [*first, *sorted(set(content) - {self.kind.mark, *first})]:
            self.storage.delete(name)
        # Before the mark: what has one is whole.
        for name, content_of_file in files.items():
            self.storage.write(name, content_of_file)
        self.storage.write(self.kind.mark, to_json(document))

    def _taken(self, holder: object) -> InputError:
        return InputError("--name", self.name, f"{holder} {self.kind.busy}; take another name")


def find_folder(
    kind: Kind, name: str, place: str, *, patience: float, overwrite: bool = False
) -> Folder:
    """Finds out what a name stands for. Writes nothing.

    Args:
        kind: What it is to hold.
        name: Its name.
        place: The storage.
        patience: Seconds for which, from here on, an object store may fail to answer.
        overwrite: Start anew where there is one of that name.

    Raises:
        InputError: The place can't be read, or the name is taken.
    """
    if RAYS_COPY in absolute(place):
        raise InputError(
            "--storage",
            place,
            "is in the copy of a working directory that Ray makes for a job, and goes with it; "
            "give s3://BUCKET/PREFIX, or a whole path on a disk that all nodes share",
        )
    with usable(place):
        content = open_storage(place).at(name).list()
    storage = open_storage(place, patience=patience).at(name)
    if content and kind.mark not in content:
        raise InputError(
            "--name",
            name,
            f"{storage.uri} is not empty and holds no {kind.noun}; take another name",
        )
    if kind.end in content and not overwrite:
        raise InputError(
            "--name",
            name,
            f"this {kind.noun} has finished; `lenet {kind.shown} {name}{_flag_of(place)}` shows "
            "it; take another name or start anew with --overwrite",
        )
    return Folder(
        kind=kind,
        name=name,
        place=place,
        storage=storage,
        is_new=overwrite or not content,
        replaces=overwrite and bool(content),
    )


def usual_for(
    given: Mapping[str, Any], usual: Mapping[str, Any], *, overwrite: bool
) -> Mapping[str, Any]:
    """Of what is usual here, what holds for the folder that is meant: for a new one, all of it.

    One that goes on is as it was begun, whatever is usual by now, and whether it is usable at all;
    only its name and where it is kept count.

    Args:
        given: Settings that were given for it.
        usual: Those that variables and files name.
        overwrite: It starts anew, if there is one.

    Raises:
        InputError: The place can't be read, or it or the name is unusable.
    """
    where = {name: value for name, value in usual.items() if name in ("name", "storage")}
    meant = {"storage": FIELDS["storage"].default, **where, **given}
    if not usual or overwrite or not meant.get("name"):
        return usual
    check_given({"name": meant["name"]}, FIELDS)
    root = open_storage(checked_place("--storage", meant["storage"]))
    with usable(root.uri):
        return where if root.at(meant["name"]).list() else usual


def _flag_of(place: str) -> str:
    usual = place == FIELDS["storage"].default
    return "" if usual else f" --storage {shlex.quote(place)}"


def with_data(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings whose `data` is called so from anywhere: workers, and later calls, stand elsewhere.

    Where no data set is named it is the one that the place holds.

    Raises InputError where it is no place.
    """
    if not given.get("data"):
        return given
    place = absolute(checked_place("--data", given["data"]))
    with usable(place, "--data"):
        named = {} if given.get("dataset") else {"dataset": dataset_at(place)}
    return {**given, "data": place, **{k: v for k, v in named.items() if v}}


def absolute(place: str) -> str:
    """A place as it is called from anywhere; URIs are that already."""
    return place if "://" in place else os.path.abspath(place)


@contextlib.contextmanager
def usable(place: str, option: str = "--storage") -> Iterator[None]:
    """Turns what a store says when it can't be used into an error that names option and place."""
    try:
        yield
    except OSError as error:
        raise InputError(option, place, f"can't be read: {reason_of(error)}") from error
    except StoreError as error:
        raise InputError(option, place, str(error)) from error
