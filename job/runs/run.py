"""A run: its settings, its folder, and what it keeps there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from job.config.config import FIELDS, TrainConfig
from job.config.resolve import resolve, resume
from job.config.xla import decided, launched
from job.data.catalogue import Dataset
from job.errors import InputError, JobError
from job.models.architecture import Architecture, sees_whole_batch, source_of
from job.models.source import Source, find_source, flag_of, short_name
from job.models.work import lanes_for, multiplications
from job.reasons import reason_of
from job.runs.folder import Folder, Kind, find_folder, usable, usual_for, with_data
from job.runs.model import architecture_file, check_source, kept_architecture, with_source
from job.runs.names import find, in_full, is_word_for, like, made_name
from job.runs.start import START_FILE, kept_start, to_bytes
from job.runs.state import STATE_FILE, Arrays, EpochRow, RunState, history_of, sha256_of
from job.storage.base import Storage
from job.storage.checkpoints import CheckpointError, CheckpointStore
from job.storage.documents import read_document
from job.storage.open import open_storage
from job.versions import Device

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
REACHED_FILE = "reached.json"
DATA_FILE = "data.json"
CHECKPOINTS = "checkpoints"
# As `find` takes them.
RUNS = {CONFIG_FILE: "run"}
KIND = Kind(
    noun="run",
    verb="train",
    # Unlike a report, it needs no extra.
    shown="runs",
    busy="is training this run",
    mark=CONFIG_FILE,
    end=RESULT_FILE,
    # Before the note of what they were trained on.
    first=(CHECKPOINTS,),
)

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a run got, and what its interruptions cost, kept beside its checkpoints.

    Attributes:
        step: The furthest step of the current attempt.
        restarts: How often training was taken up again.
        lost_steps: Steps that had to be trained again, because no checkpoint held them.
        devices: What trained it, an entry for each change.
    """

    step: int = 0
    restarts: int = 0
    lost_steps: int = 0
    devices: tuple[Device, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run and its place.

    Attributes:
        config: Its settings, with the name filled in.
        folder: Where it is kept.
        created: When it was first started, seconds since the epoch.
        source: The file of the user's own model, where it was given.
        built: A new run's architecture, once that is built.
        begun_with: The weights that a new run begins with, if they are not fresh, as they are kept.
    """

    config: TrainConfig
    folder: Folder
    created: float
    source: Source | None = None
    built: Architecture | None = None
    begun_with: bytes | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def storage(self) -> Storage:
        """Where its files are read and written."""
        return self.folder.storage

    @property
    def command(self) -> str:
        """What to type to continue this run."""
        built = self.architecture if self.source else None
        return self.folder.command + flag_of(source_of(built))

    @functools.cached_property
    def checkpoints(self) -> CheckpointStore:
        """A new store of its checkpoints, which restores those of this config's digest only."""
        return CheckpointStore(self.storage.at(CHECKPOINTS), self.config.digest)

    @functools.cached_property
    def architecture(self) -> Architecture | None:
        """The user's own model, None where the model is a built-in one.

        Raises:
            InputError: It has parts that the user's file defines, and that is not given.
            JobError: It is not the one that the run was started with.
        """
        if self.built is not None:
            return self.built
        settings = self.config.to_dict()
        return kept_architecture(self.storage, f"run {self.name!r}", settings, self.source)

    def with_architecture(self, architecture: Architecture) -> Run:
        """The new run of a model that is built now."""
        known = dataclasses.replace(self.config, architecture_sha256=architecture.sha256)
        return dataclasses.replace(
            self, config=known, built=architecture, source=architecture.source
        )

    def with_source(self, model: str | None) -> Run:
        """The run with the file of its model, given again as FILE.py:FUNCTION, if it needs one.

        Raises:
            InputError: It needs the file, or another one is given.
            JobError: As `architecture`.
        """
        run = self
        if model is not None:
            source = find_source(model)
            check_source(f"run {self.name!r}", source, self.config.model_sha256)
            run = dataclasses.replace(self, source=source)
        _ = run.architecture
        return run

    def with_start(self, arrays: Arrays) -> Run:
        """The new run that begins with these weights."""
        content = to_bytes(arrays)
        known = dataclasses.replace(self.config, start_sha256=sha256_of_bytes(content))
        return dataclasses.replace(self, config=known, begun_with=content)

    def start(self) -> Arrays:
        """Arrays that the run begins with; raises JobError as `kept_start`."""
        return kept_start(self.storage, self.config.start_sha256)

    def launched(self, kind: str, capability: tuple[int, int] | None = None) -> Run:
        """The run as decided at its start on a `gpu`, of a capability if known, or a `cpu`."""
        return dataclasses.replace(self, config=launched(self.config, kind, capability))

    def with_lanes(self, threads: int, dataset: Dataset) -> Run:
        """A new run with a note of the lanes in which processors compute it.

        Wherever it goes on, with more threads or fewer, sums are taken alike and its bits stay. One
        that began without the note has a lane for each thread that it finds.

        Args:
            threads: Those of each worker.
            dataset: What it is trained on.
        """
        if not self.folder.is_new:
            return self
        config, built = self.config, self.architecture
        if built is None or not sees_whole_batch(built):
            work = multiplications(config.model, dataset.image_shape, len(dataset.labels), built)
            threads = lanes_for(threads, config.batch_size / config.worker_limits[1], work)
        return dataclasses.replace(self, config=dataclasses.replace(config, lanes=threads))

    @contextlib.contextmanager
    def claimed(self, *, lock: bool = True) -> Iterator[None]:
        """Holds the run for this process, the only one that may write to it, for the block's time.

        A new run gets its `config.json`.

        Args:
            lock: Keep all others out. Without it another lock has to, that of a sweep; what a
                process of an earlier attempt still does to the run is fenced off by its
                checkpoints in any case.

        Raises:
            InputError: Another process trains this run, or took the name since `prepare_run`.
        """
        document = {"created": self.created, "config": decided(self.config).to_dict()}
        files = architecture_file(self.built)
        if self.begun_with is not None:
            files[START_FILE] = self.begun_with
        with self.folder.claimed(document, files, lock=lock):
            if not self.folder.is_new:
                # First, so that what an earlier attempt has under way is an orphan and stays one.
                self.checkpoints.claim()
                self.checkpoints.remove_orphans()
            yield

    def note(self, reached: Reached) -> None:
        """Keeps how far the run got."""
        self.storage.write(REACHED_FILE, json.dumps(dataclasses.asdict(reached)).encode())

    def reached(self) -> Reached | None:
        """How far the run got, None before its first span of steps."""
        try:
            document = read_document(self.storage, REACHED_FILE)
            counts = {k: _whole(document[k]) for k in ("step", "restarts", "lost_steps")}
            # Runs of before devices were noted have none.
            devices = tuple(Device(**one) for one in document.get("devices", ()))
            return Reached(**counts, devices=devices)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            # Only the count of lost steps hangs on it, which is no reason to refuse the run.
            log.warning("%s/%s can't be read: %s", self.storage.uri, REACHED_FILE, error)
            return Reached()

    def result(self) -> dict[str, Any] | None:
        """What a finished run achieved, or None for an unfinished one.

        Raises:
            JobError: The file is not what a run writes.
        """
        try:
            document = read_document(self.storage, RESULT_FILE)
            if not isinstance(document.get("best_weights_sha256"), str):
                raise ValueError("best_weights_sha256 is missing")
            return document
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise JobError(f"{self.storage.uri}/{RESULT_FILE} can't be trusted: {error}") from error

    def restore(self) -> RunState | None:
        """The newest checkpoint that verifies, None before the first.

        Raises:
            JobError: There are checkpoints, but none that can be trusted.
        """
        return self._restored(RunState.from_files)

    def history(self) -> tuple[EpochRow, ...]:
        """The finished epochs by the newest checkpoint, whose arrays, megabytes, are not read.

        Raises:
            JobError: As `restore`.
        """
        return self._restored(history_of, [STATE_FILE]) or ()

    def _restored(
        self, read: Callable[[Mapping[str, bytes]], T], only: Collection[str] | None = None
    ) -> T | None:
        try:
            restored = self.checkpoints.restore(only)
            return None if restored is None else read(restored.files)
        except (CheckpointError, ValueError) as error:
            raise JobError(f"run {self.name!r}: {error}") from error


def prepare_run(
    given: Mapping[str, Any],
    *,
    usual: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    source: Source | None = None,
) -> Run:
    """Finds out which run `lenet train` is to start or continue. Writes nothing.

    Args:
        given: The settings that the user gave, by field name.
        usual: Those of a new run where nothing is given; where runs are kept in any case.
        overwrite: Start anew where a run of that name exists.
        source: The file of the user's own model, where it has been found before.

    Raises:
        InputError: A setting is unusable, or the name is taken.
    """
    given = {**usual_for(given, usual or {}, overwrite=overwrite), **given}
    found_now, given = with_source(with_data(given))
    source = source or found_now
    config = resolve(given)
    name = config.name or made_name(short_name(config.model), config.storage)
    folder = find_folder(
        KIND, name, config.storage, patience=config.storage_timeout, overwrite=overwrite
    )
    if folder.is_new:
        # Of a trial the sweep has found it out.
        if config.start_sha256 is None:
            start = in_full(config.start_from, config.storage, RUNS)
            config = dataclasses.replace(config, start_from=start)
        config = dataclasses.replace(config, name=name)
        return Run(config=config, folder=folder, created=time.time(), source=source)
    stored, created = _read_config(folder.storage)
    if is_word_for(given.get("start_from"), stored.get("start_from")):
        # Which run it stood for was decided when this one began.
        given = {**given, "start_from": stored["start_from"]}
    # Another model is refused as another setting is.
    if source and source.name == stored["model"]:
        check_source(f"run {name!r}", source, stored.get("model_sha256"))
    # Where the run was found is where it goes on, whatever it was called from when it began.
    found = {"name": name, "storage": config.storage}
    config = resume(stored, {**given, **found})
    run = Run(config=config, folder=folder, created=created, source=source)
    if config.architecture_sha256 and RESULT_FILE not in folder.storage.list():
        # Before anything begins, that it can be built.
        _ = run.architecture
    return run


def open_run(name: str, storage: str = "runs") -> Run:
    """Opens an existing run, by its name below `storage` or by a path, which has a `/`.

    Raises:
        InputError: There is no such run.
    """
    place = open_storage(name) if "/" in name else open_storage(storage).at(checked_name(name))
    with usable(place.uri):
        return _run_in(place, name, place.list())


def find_run(word: str, storage: str = "runs", *, field: str = "RUN") -> Run:
    """As `open_run`, for what a user typed: `last`, or the beginning of one name, will do.

    `field` is what errors call the word.

    Raises:
        InputError: There is no such run, or several begin so.
    """
    found = find(word, storage, RUNS, field=field)
    with usable(found.folder.uri):
        hint = "" if CONFIG_FILE in found.content else like(word, storage)
        return _run_in(found.folder, word, found.content, field, hint)


def _run_in(
    place: Storage, name: str, content: Sequence[str], field: str = "RUN", hint: str = ""
) -> Run:
    if CONFIG_FILE not in content:
        advice = hint or "; `lenet train` makes one"
        raise InputError(field, name, f"no run in {place.uri}{advice}")
    return run_at(place)


def checked_name(name: str) -> str:
    """A name that a run can have. Raises InputError for others."""
    TrainConfig(name=name)
    return name


def run_at(place: Storage) -> Run:
    """The run in a folder. Raises InputError where there is none, or its settings are no run's."""
    stored, created = _read_config(place)
    return begun_run(TrainConfig.kept(stored), created, place)


def begun_run(
    config: TrainConfig,
    created: float,
    storage: Storage | None = None,
    source: Source | None = None,
) -> Run:
    """A run that has begun, whose settings are known; by default in the place that they name."""
    # Whoever began it has filled the name in.
    name = cast("str", config.name)
    if storage is None:
        storage = open_storage(config.storage, patience=config.storage_timeout).at(name)
    folder = Folder(kind=KIND, name=name, place=config.storage, storage=storage)
    return Run(config=config, folder=folder, created=created, source=source)


def verified_best(run: Run) -> RunState:
    """A run's state with its best weights, checked against its result.

    Raises:
        InputError: No epoch has been finished yet.
        JobError: The weights are not those that the result names.
    """
    state = run.restore()
    if state is None or state.best is None:
        raise InputError("RUN", run.name, "has no finished epoch yet; let it train on")
    result = run.result()
    found = sha256_of(state.best_weights.values())
    if result is not None and found != result["best_weights_sha256"]:
        raise JobError(
            f"run {run.name!r}: the best weights in its checkpoint are not those of "
            f"{RESULT_FILE} (SHA-256 differs)"
        )
    return state


def _read_config(folder: Storage) -> tuple[dict[str, Any], float]:
    try:
        document = read_document(folder, CONFIG_FILE)
        stored, created = document["config"], float(document["created"])
        if not isinstance(stored, dict) or not {"model", "seed"} <= stored.keys() <= FIELDS.keys():
            raise ValueError("its settings are not those of a run")
        if not math.isfinite(created):
            raise ValueError("created is not a time")
        TrainConfig.kept(stored)
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, InputError) as error:
        why = reason_of(error) or error
        raise InputError("RUN", folder.uri, f"{CONFIG_FILE} can't be read ({why})") from error
    return stored, created


def sha256_of_bytes(content: bytes) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
