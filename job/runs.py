"""Run folders: which one a command means, and whether it is new, to be continued, or finished."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from cluster.checkpoints import BadCheckpoint, CheckpointStore
from cluster.storage import Storage, open_storage
from job.config import FIELDS, TrainConfig, resolve, resume
from job.errors import InputError, JobError
from job.state import RunState, sha256_of

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
REACHED_FILE = "reached.json"
CHECKPOINTS = "checkpoints"
MAX_DOCUMENT_BYTES = 1 << 24

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run and its place.

    Attributes:
        config: Its settings, with the name filled in.
        storage: Its folder.
        created: When it was first started, seconds since the epoch.
        is_new: Nothing has been written yet.
        replaces: The folder holds an older run that goes away when this one starts.
    """

    config: TrainConfig
    storage: Storage
    created: float
    is_new: bool = False
    replaces: bool = False

    @property
    def checkpoints(self) -> CheckpointStore:
        return CheckpointStore(self.storage.at(CHECKPOINTS), self.config.digest)

    def begin(self) -> None:
        """Writes `config.json` of a new run, after removing the one it replaces."""
        if not self.is_new:
            return
        if self.replaces:
            # The marks of a run go first: a crash in between must not leave something that looks
            # finished or can be continued.
            for name in (RESULT_FILE, CONFIG_FILE, *self.storage.list()):
                self.storage.delete(name)
        document = {"created": self.created, "config": self.config.to_dict()}
        self.storage.write(CONFIG_FILE, (json.dumps(document, indent=2) + "\n").encode())

    def reached(self, state: RunState) -> None:
        """Notes how far training got, so that a restart can tell what was lost."""
        self.storage.write(REACHED_FILE, json.dumps({"step": state.step}).encode())

    def furthest_step(self) -> int:
        """The last step noted, 0 where there is no note."""
        try:
            return int(json.loads(self.storage.read(REACHED_FILE, limit=1000))["step"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError) as error:
            # Only the count of lost steps hangs on it, which is no reason to refuse the run.
            log.warning("%s/%s can't be read: %s", self.storage.uri, REACHED_FILE, error)
            return 0

    def result(self) -> dict[str, Any] | None:
        """What a finished run achieved, or None for an unfinished one."""
        if RESULT_FILE not in self.storage.list():
            return None
        return json.loads(self.storage.read(RESULT_FILE, limit=MAX_DOCUMENT_BYTES))

    def restore(self) -> RunState | None:
        """The newest checkpoint that verifies, None before the first.

        Raises:
            JobError: There are checkpoints, but none that can be trusted.
        """
        try:
            restored = self.checkpoints.restore()
            return None if restored is None else RunState.from_files(restored.files)
        except (BadCheckpoint, ValueError) as error:
            raise JobError(f"run {self.config.name!r}: {error}") from error


def settle(given: Mapping[str, Any], *, overwrite: bool = False) -> Run:
    """Finds out which run `lenet train` is to start or continue. Writes nothing.

    Args:
        given: The settings that the user gave, by field name.
        overwrite: Start anew where a run of that name exists.

    Raises:
        InputError: A setting is unusable, or the name is taken.
    """
    config = resolve(given)
    root = open_storage(config.storage)
    now = time.time()
    if config.name is None:
        config = dataclasses.replace(config, name=_free_name(config, root, now))
    folder = root.at(config.name)
    content = folder.list()
    new = Run(config=config, storage=folder, created=now, is_new=True, replaces=overwrite)
    if not content:
        return dataclasses.replace(new, replaces=False)
    if CONFIG_FILE not in content:
        raise InputError(
            "--name", config.name, f"{folder.uri} is not empty and holds no run; take another name"
        )
    if overwrite:
        return new
    if RESULT_FILE in content:
        raise InputError(
            "--name",
            config.name,
            "this run has finished; take another name or start anew with --overwrite",
        )
    stored, created = _read_config(folder)
    return Run(
        config=resume(stored, {**given, "name": config.name}), storage=folder, created=created
    )


def open_run(name: str, storage: str = "runs") -> Run:
    """Opens an existing run, by its name below `storage` or by the path of its folder.

    Raises:
        InputError: There is no such run.
    """
    folder = open_storage(name)
    if "/" not in name.rstrip("/") and CONFIG_FILE not in folder.list():
        TrainConfig(name=name)
        folder = open_storage(storage).at(name)
    if CONFIG_FILE not in folder.list():
        raise InputError("RUN", name, f"no run in {folder.uri}; `lenet train` makes one")
    stored, created = _read_config(folder)
    return Run(config=TrainConfig(**stored), storage=folder, created=created)


def verified_best(run: Run) -> RunState:
    """A run's state with its best weights, checked against its result.

    Raises:
        InputError: No epoch has been finished yet.
        JobError: The weights are not those that the result names.
    """
    state = run.restore()
    if state is None or state.best is None:
        raise InputError("RUN", run.config.name, "has no finished epoch yet; let it train on")
    result = run.result()
    if result and sha256_of(state.best_weights.values()) != result["best_weights_sha256"]:
        raise JobError(
            f"run {run.config.name!r}: the best weights in its checkpoint are not those of "
            f"{RESULT_FILE} (SHA-256 differs)"
        )
    return state


def _read_config(folder: Storage) -> tuple[dict[str, Any], float]:
    try:
        document = json.loads(folder.read(CONFIG_FILE, limit=MAX_DOCUMENT_BYTES))
        stored, created = document["config"], float(document["created"])
        if not isinstance(stored, dict) or not stored.keys() <= FIELDS.keys():
            raise ValueError("has unknown settings")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("RUN", folder.uri, f"{CONFIG_FILE} can't be read ({error})") from error
    return stored, created


def _free_name(config: TrainConfig, root: Storage, now: float) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    base = f"{config.model}-{config.dataset}-{stamp}"
    taken = set(root.list())
    candidates = (base, *(f"{base}-{i}" for i in range(2, 1000)))
    return next(name for name in candidates if name not in taken)
