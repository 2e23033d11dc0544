"""Checkpoints that are visible only when whole, and verified before they are used.

    checkpoints/
      step-00000375-1f0c2ab4/   one folder for each checkpoint: its global step, and who wrote it
        arrays.safetensors
        state.json
        manifest.json           size and SHA-256 of the files above, format, config digest
      index.json                the committed checkpoints, each with its manifest's SHA-256

The index is the only commit point. Its replacement is atomic, so a reader sees a checkpoint with
all its files or does not see it at all. The crash windows are named where they occur.

The index is only ever replaced over the version that was read, and it names the attempt to train
that may add to it: what an earlier attempt still has under way (a worker that was cut off, but
reaches the store) can't be committed any more once a later one has begun, and goes into other
folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from job.errors import JobError
from job.storage.base import Storage, StoreError, WriteConflictError

FORMAT = 1
INDEX = "index.json"
MANIFEST = "manifest.json"
# A run of these models is a few MB; nothing larger than this is read into memory.
MAX_FILE_BYTES = 1 << 30
MAX_DOCUMENT_BYTES = 1 << 24
KEEP_LAST = 2
FOLDER = re.compile(r"step-(\d{8,})(?:-([0-9a-f]{8}))?")
TURN_SECONDS = 0.05

log = logging.getLogger(__name__)


class SupersededError(Exception):
    """A later attempt trains this run; this one may not commit any more."""


class CheckpointError(Exception):
    """A checkpoint is missing a file or holds other bytes than were committed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Committed:
    """A committed checkpoint as the index lists it."""

    step: int
    manifest_sha256: str
    val_loss: float | None
    pinned: bool = False
    writer: str = ""

    @property
    def folder(self) -> str:
        """The name of its folder; without a writer's part if it has none."""
        return f"step-{self.step:08d}" + (f"-{self.writer}" if self.writer else "")


class Index(NamedTuple):
    """The committed checkpoints, oldest first, and the attempt that may add to them (empty: any).

    Also the version of the file in which they stand, and whether that file could be read.
    """

    entries: list[Committed]
    writer: str = ""
    version: str | None = None
    is_trusted: bool = True


class Restored(NamedTuple):
    """A verified checkpoint, and what had to be skipped to find it."""

    step: int
    files: dict[str, bytes]
    skipped: list[str]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        storage: The run's `checkpoints` folder.
        config_digest: Checkpoints with another digest are not restored.
    """

    def __init__(self, storage: Storage, config_digest: str) -> None:
        self._storage = storage
        self._digest = config_digest
        self._writer = ""
        # What this object wrote last, which saves a request where nobody else writes.
        self._known: Index | None = None

    def claim(self) -> None:
        """Begins a new attempt: stores that claimed before can't commit any more."""
        writer = secrets.token_hex(4)
        self._writer = ""
        self._update(lambda index: index._replace(writer=writer))
        self._writer = writer

    def check(self) -> None:
        """Asks the storage whether this attempt may still write. Raises SupersededError."""
        self._permitted(self._index())

    def save(self, step: int, files: Mapping[str, bytes], *, val_loss: float | None = None) -> None:
        """Writes a checkpoint and commits it; afterwards retention removes old ones.

        Args:
            step: Global step, the checkpoint's name.
            files: Content by file name.
            val_loss: Validation loss if the step ends an epoch; the lowest is kept.

        Raises:
            SupersededError: A later attempt has begun.
        """
        manifest = _manifest(step, files, self._digest)
        entry = Committed(
            step=step,
            manifest_sha256=_sha256(manifest),
            val_loss=val_loss,
            writer=self._writer,
        )
        for name, content in files.items():
            self._storage.write(f"{entry.folder}/{name}", content)
        self._storage.write(f"{entry.folder}/{MANIFEST}", manifest)
        # Crash window 1, anywhere above: the folder is not in the index. Readers see the previous
        # checkpoint; the folder is an orphan that the next save of this step overwrites.
        dropped: list[Committed] = []

        def commit(index: Index) -> Index:
            earlier = [known for known in index.entries if known.step < step]
            kept, dropped[:] = retained([*earlier, entry])
            return index._replace(entries=kept)

        self._update(commit)
        # Crash window 2: the checkpoint counts, but dropped folders are still there. Nothing
        # names them; `remove_orphans` takes them away when the run goes on.
        try:
            for old in dropped:
                self._storage.delete(old.folder)
        except StoreError as error:
            # No reason to end a run whose checkpoint is safe.
            log.warning("an old checkpoint was not removed: %s", error)

    def pin(self, step: int, pinned: bool = True) -> None:
        """Keeps a checkpoint for good, or no longer. Raises KeyError where there is none."""

        def change(index: Index) -> Index:
            if step not in {entry.step for entry in index.entries}:
                raise KeyError(step)
            return index._replace(
                entries=[
                    dataclasses.replace(e, pinned=pinned) if e.step == step else e
                    for e in index.entries
                ]
            )

        self._update(change)

    @property
    def last_committed(self) -> int | None:
        """The newest step that is known to be committed, without asking the storage."""
        return self._known.entries[-1].step if self._known and self._known.entries else None

    def restore(self, only: Collection[str] | None = None) -> Restored | None:
        """The newest checkpoint that verifies, or None where nothing was ever committed.

        Args:
            only: Read and verify no other files of it.

        Raises:
            CheckpointError: Checkpoints were committed, but none of them verifies.
        """
        skipped: list[str] = []
        entries = self.entries()
        for entry in sorted(entries, key=lambda e: e.step, reverse=True):
            try:
                return Restored(entry.step, self._verified(entry, only), skipped)
            except CheckpointError as problem:
                skipped.append(f"{entry.folder}: {problem}")
                log.warning("skipped checkpoint %s/%s", self._storage.uri, skipped[-1])
        if entries:
            raise CheckpointError(
                f"no checkpoint in {self._storage.uri} can be trusted: " + "; ".join(skipped)
            )
        return None

    def entries(self) -> list[Committed]:
        """The committed checkpoints, oldest first.

        An index that can't be trusted is replaced by what the folders themselves prove, with a
        warning.
        """
        return self._index().entries

    def _index(self) -> Index:
        # The version first: should the file change before it is read, the write over it is refused.
        version = self._storage.version(INDEX)
        try:
            raw = self._storage.read(INDEX, limit=MAX_DOCUMENT_BYTES)
            return Index(*_parse_index(raw), version)
        except FileNotFoundError:
            if not self._folders():
                return Index([])
            problem = "is missing"
        except (OSError, ValueError) as error:
            problem = str(error)
        log.warning("%s/%s %s; reading the folders instead", self._storage.uri, INDEX, problem)
        found = sorted(self._scan(), key=lambda e: e.step)
        return Index(found, self._writer, version, is_trusted=False)

    def _update(self, change: Callable[[Index], Index]) -> Index:
        """Replaces the index by what `change` makes of it; again, where another was faster."""
        index = self._known or self._index()
        while True:
            self._permitted(index)
            wanted = change(index)
            try:
                version = self._storage.write_if(INDEX, _to_json(wanted), index.version)
            except WriteConflictError:
                time.sleep(TURN_SECONDS)
                index = self._index()
                continue
            self._known = wanted._replace(version=version, is_trusted=True)
            return self._known

    def _permitted(self, index: Index) -> None:
        if self._writer and index.writer != self._writer:
            raise SupersededError(
                f"another attempt has begun to train the run in {self._storage.uri}"
            )

    def orphans(self) -> list[str]:
        """The folders that crashed attempts left and the index does not name."""
        folders = self._folders()
        index = self._index()
        if not index.is_trusted:
            # What looks damaged now may only have been out of reach, or of another version.
            return []
        named = {entry.folder for entry in index.entries}
        return [name for name in folders if name not in named]

    def remove_orphans(self) -> list[str]:
        """Removes them, for the one writer of the run only."""
        orphans = self.orphans()
        for name in orphans:
            self._storage.delete(name)
        return orphans

    def _verified(self, entry: Committed, only: Collection[str] | None = None) -> dict[str, bytes]:
        raw = self._read(f"{entry.folder}/{MANIFEST}", MAX_DOCUMENT_BYTES)
        if _sha256(raw) != entry.manifest_sha256:
            raise CheckpointError(
                f"{MANIFEST} has SHA-256 {_sha256(raw)}, committed was {entry.manifest_sha256}"
            )
        manifest = _parse_manifest(raw)
        if manifest["step"] != entry.step:
            raise CheckpointError(f"{MANIFEST} is that of step {manifest['step']}")
        if manifest["config_digest"] != self._digest:
            raise CheckpointError("was written by a run with other settings")
        files = {}
        for name, expected in manifest["files"].items():
            if only is not None and name not in only:
                continue
            content = self._read(f"{entry.folder}/{name}", min(expected["size"], MAX_FILE_BYTES))
            if _sha256(content) != expected["sha256"]:
                raise CheckpointError(
                    f"{name} has SHA-256 {_sha256(content)}, the manifest says {expected['sha256']}"
                )
            files[name] = content
        return files

    def _read(self, path: str, limit: int) -> bytes:
        try:
            return self._storage.read(path, limit=limit)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} can't be read ({error})") from error

    def _folders(self) -> list[str]:
        return [name for name in self._storage.list() if FOLDER.fullmatch(name)]

    def _scan(self) -> Iterator[Committed]:
        for name in self._folders():
            try:
                raw = self._read(f"{name}/{MANIFEST}", MAX_DOCUMENT_BYTES)
                match = FOLDER.fullmatch(name)
                assert match is not None  # as `_folders` lists no other
                step, writer = match.groups()
                entry = Committed(
                    step=int(step),
                    manifest_sha256=_sha256(raw),
                    val_loss=None,
                    writer=writer or "",
                )
                self._verified(entry)
            except CheckpointError as problem:
                log.warning("%s/%s is not whole: %s", self._storage.uri, name, problem)
                continue
            yield entry


def retained(entries: list[Committed]) -> tuple[list[Committed], list[Committed]]:
    """Splits checkpoints into those to keep and those to drop.

    Kept are the last two, the best by validation loss, and pinned ones; the newest always.
    """
    ordered = sorted(entries, key=lambda e: e.step)
    keep = {e.step for e in ordered[-KEEP_LAST:]} | {e.step for e in ordered if e.pinned}
    measured = [(e.val_loss, e.step) for e in ordered if e.val_loss is not None]
    if measured:
        _, best = min(measured, key=lambda pair: pair[0])
        keep.add(best)
    return [e for e in ordered if e.step in keep], [e for e in ordered if e.step not in keep]


def _manifest(step: int, files: Mapping[str, bytes], digest: str) -> bytes:
    document = {
        "format": FORMAT,
        "step": step,
        "config_digest": digest,
        "files": {
            name: {"size": len(content), "sha256": _sha256(content)}
            for name, content in files.items()
        },
    }
    return json.dumps(document, indent=1).encode()


def _parse_manifest(raw: bytes) -> dict[str, Any]:
    """Raises CheckpointError for anything that `_manifest` did not write."""
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise CheckpointError(f"format {document['format']}, this version reads {FORMAT}")
        files = {
            name: {"size": int(file["size"]), "sha256": str(file["sha256"])}
            for name, file in document["files"].items()
        }
        return {
            "step": document["step"],
            "config_digest": document["config_digest"],
            "files": files,
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{MANIFEST} is not a manifest ({error!r})") from error


def _to_json(index: Index) -> bytes:
    body = {
        "writer": index.writer,
        "checkpoints": [dataclasses.asdict(entry) for entry in index.entries],
    }
    return json.dumps({"format": FORMAT, "sha256": _digest_of(body), **body}, indent=1).encode()


def _parse_index(raw: bytes) -> tuple[list[Committed], str]:
    """Raises ValueError for anything that `_to_json` did not write.

    What another version of this program wrote raises JobError: that is not damaged, and must not be
    repaired.
    """
    try:
        document = json.loads(raw)
        if isinstance(document["format"], int) and document["format"] != FORMAT:
            raise JobError(
                f"checkpoints of format {document['format']}: this version reads {FORMAT}; "
                "use the version that wrote them"
            )
        body = {name: document[name] for name in ("writer", "checkpoints")}
        if _digest_of(body) != document["sha256"]:
            raise ValueError("its SHA-256 does not match its content")
        return [Committed(**entry) for entry in body["checkpoints"]], str(body["writer"])
    except (LookupError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not an index of checkpoints ({error!r})") from error


def _digest_of(document: Any) -> str:
    return _sha256(json.dumps(document).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
