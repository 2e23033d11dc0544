"""Finished runs of nets, and finished baselines, as entries that can stand side by side."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from job.config.fields import number, optional, text
from job.data.catalogue import Dataset
from job.errors import InputError, JobError
from job.results.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from job.runs.data import dataset_of, kept_dataset
from job.runs.folder import usable
from job.runs.run import CONFIG_FILE, RESULT_FILE, Run, checked_name, open_run
from job.storage.base import Storage, open_storage
from job.storage.documents import read_document

# Where settings come from, and what chance is taken: neither makes another model.
IRRELEVANT = ("recipe", "seed")
# What a net is given.
NET_FEATURES = "pixels"
TRAINING_DATA = "training_data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """A net or a classical method that was trained to its end and tested.

    Attributes:
        name: As the user named it.
        model: A model of `job.models`, or a method of `job.baselines`.
        features: What it was given.
        settings: Those that decide the result, without the seed.
        how: The same, the main ones, in words.
        seed: None where nothing is left to chance.
        dataset: What it was trained and tested on.
        train_rows: On how many of its rows.
        val_accuracy, test_accuracy: Of the weights that are kept.
        train_seconds: Training, without validation.
        search_seconds: Choosing the settings, where that is part of the method.
        test_seconds: Predicting the test examples; None for runs of earlier versions.
        device: What computed.
        folder: What it left.
    """

    name: str
    model: str
    features: str
    settings: dict[str, Any]
    how: str
    seed: int | None
    dataset: Dataset
    train_rows: int
    val_accuracy: float
    test_accuracy: float
    train_seconds: float
    search_seconds: float | None
    test_seconds: float | None
    device: str
    folder: Storage = dataclasses.field(repr=False)

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Its answers to the test examples.

        Raises:
            InputError: It kept none.
            JobError: They are not those of its result.
        """
        try:
            found = read_predictions(self.folder)
        except FileNotFoundError:
            raise InputError(
                "RUN",
                self.name,
                f"has no {PREDICTIONS_FILE}, as runs of earlier versions; train it again",
            ) from None
        except ValueError as error:
            raise self._mistrusted(str(error)) from error
        if found.accuracy != self.test_accuracy:
            raise self._mistrusted(
                f"its accuracy is {found.accuracy:.4f}, that of {RESULT_FILE} "
                f"{self.test_accuracy:.4f}"
            )
        return found

    def _mistrusted(self, why: str) -> JobError:
        return JobError(f"{self.folder.uri}/{PREDICTIONS_FILE} can't be trusted: {why}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Entries that differ by the seed alone. `title` tells them from other groups."""

    title: str
    members: tuple[Finished, ...]

    @property
    def first(self) -> Finished:
        return self.members[0]

    @property
    def best(self) -> Finished:
        """The member with the best validation accuracy."""
        return max(self.members, key=lambda member: member.val_accuracy)

    def values(self, name: str) -> list[float]:
        """A field of all members that have it."""
        found = [getattr(member, name) for member in self.members]
        return [value for value in found if value is not None]


def open_finished(name: str, storage: str = "runs") -> Finished:
    """Opens a finished run or baseline, by its name below `storage` or by a path, which has a `/`.

    Raises:
        InputError: There is none, or it has not finished.
        JobError: Its record can't be trusted.
    """
    folder = open_storage(name) if "/" in name else open_storage(storage).at(checked_name(name))
    with usable(folder.uri):
        content = folder.list()
        below = [] if CONFIG_FILE in content else [n for n in content if _is_method(folder.at(n))]
    if CONFIG_FILE in content:
        return _of_run(open_run(name, storage), name)
    if RESULT_FILE in content:
        return of_baseline(folder, name)
    if below:
        raise InputError("RUN", name, f"holds several; name one, such as {folder.at(below[0]).uri}")
    raise InputError("RUN", name, f"no run in {folder.uri}; `lenet runs` lists them")


def _is_method(folder: Storage) -> bool:
    return RESULT_FILE in folder.list()


def _of_run(run: Run, name: str) -> Finished:
    result = run.result()
    if result is None:
        raise InputError("RUN", name, f"has not finished; let it train on: {run.command}")
    config, dataset = run.config, dataset_of(run)
    settings = {k: v for k, v in config.fixed_dict().items() if k not in IRRELEVANT}
    settings[TRAINING_DATA] = fingerprint(dataset)
    return Finished(
        name=name,
        model=config.model,
        features=NET_FEATURES,
        settings=settings,
        how=f"{config.epochs} epochs, batch {config.batch_size}, {config.optimizer} "
        f"{config.learning_rate:g}",
        seed=config.seed,
        dataset=dataset,
        train_rows=config.limit_train or training_rows(dataset),
        search_seconds=None,
        folder=run.storage,
        **_figures(run.storage, result),
    )


def of_baseline(folder: Storage, name: str) -> Finished:
    """A baseline from its folder.

    Raises:
        JobError: Its record can't be trusted.
    """
    try:
        result = read_document(folder, RESULT_FILE)
        settings = {k: result[k] for k in ("model", "features", "components", "settings")}
        chosen = dict(settings["settings"])
        model, features = text(settings["model"]), text(settings["features"])
        train_rows, search_seconds = int(result["train_rows"]), float(result["search_seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{folder.uri}/{RESULT_FILE} can't be trusted: {error!r}") from error
    components, dataset = settings["components"], kept_dataset(folder)
    return Finished(
        name=name,
        model=model,
        features=features + (f", {components} components" if components else ""),
        settings={**settings, "train_rows": train_rows, TRAINING_DATA: fingerprint(dataset)},
        how=", ".join(f"{key} {value}" for key, value in chosen.items()),
        seed=None,
        dataset=dataset,
        train_rows=train_rows,
        search_seconds=search_seconds,
        folder=folder,
        **_figures(folder, result),
    )


def _figures(folder: Storage, result: dict[str, Any]) -> dict[str, Any]:
    share, seconds = number(minimum=0, maximum=1), number(minimum=0, maximum=1e9)
    try:
        return {
            "val_accuracy": share(result["val_accuracy"]),
            "test_accuracy": share(result["test_accuracy"]),
            "train_seconds": seconds(result["train_seconds"]),
            "test_seconds": optional(seconds)(result.get("test_seconds")),
            "device": text(result["device"]),
        }
    except (ValueError, KeyError) as error:
        raise JobError(f"{folder.uri}/{RESULT_FILE} can't be trusted: {error!r}") from error


def training_rows(dataset: Dataset) -> int:
    """Rows of a data set that train; the last fifth validates."""
    return dataset.train_rows * 4 // 5


def fingerprint(dataset: Dataset) -> str:
    """Tells training data from others of the same name."""
    joined = "".join(file.sha256 for file in dataset.train_files)
    return hashlib.sha256(joined.encode()).hexdigest()[:8]


def check_same_test(entries: Sequence[Finished]) -> None:
    """Raises InputError where entries were tested on different examples."""
    first = entries[0]
    for entry in entries:
        if entry.dataset.test_files != first.dataset.test_files:
            mine, other = entry.dataset.name, first.dataset.name
            raise InputError(
                "RUN",
                entry.name,
                f"was tested on {mine}, but {first.name} on {'another ' * (mine == other)}{other};"
                " figures of different data do not compare",
            )


def groups_of(entries: Sequence[Finished]) -> list[Group]:
    """The entries by settings and training data, in the order given, each group by its seeds.

    Raises:
        InputError: Two differ by nothing, so that the second tells nothing of other seeds.
    """
    found: dict[str, list[Finished]] = {}
    for entry in entries:
        group = found.setdefault(_key(entry), [])
        for other in group:
            if other.seed == entry.seed:
                raise InputError(
                    "RUN",
                    entry.name,
                    f"is trained like {other.name}, with the same seed; name one of them, or train "
                    "with another --seed",
                )
        group.append(entry)
    groups = [tuple(sorted(g, key=lambda e: (e.seed or 0, e.name))) for g in found.values()]
    titles = [_title(members[0], [other[0] for other in groups]) for members in groups]
    return [
        Group(title=title, members=members) for title, members in zip(titles, groups, strict=True)
    ]


def _key(entry: Finished) -> str:
    return json.dumps(entry.settings, sort_keys=True)


def _title(entry: Finished, others: Sequence[Finished]) -> str:
    """The model's name, with the settings that tell it from others of that name."""
    like = [other.settings for other in others if other.model == entry.model]
    differing = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in entry.settings.items()
        if any(other.get(name) != value for other in like)
    ]
    return ", ".join([entry.model, *differing])
