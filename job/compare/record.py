"""What nets and classical methods came to, as records that can stand side by side."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any, cast

from job.config.config import TrainConfig
from job.config.fields import number, optional, text
from job.data.catalogue import Dataset
from job.errors import InputError, JobError
from job.results.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from job.runs.data import dataset_of, kept_dataset
from job.runs.folder import usable
from job.runs.names import find, like
from job.runs.run import CONFIG_FILE, RESULT_FILE, RUNS, Run, run_at
from job.runs.state import EpochRow, best_row
from job.stats import mean_sd
from job.storage.base import Storage
from job.storage.documents import read_document
from job.text import counted

# Where settings come from makes no other model.
IRRELEVANT = ("recipe",)
# What a net is given.
NET_FEATURES = "pixels"
FINISHED = "finished"
TRAINING_DATA = "training_data"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a net or a classical method came to.

    Attributes:
        name: As the user named it.
        model: A model of `job.models`, or a method of `job.baselines`.
        features: What it was given.
        settings: Those that decide the result, without the seed.
        how: The same, the main ones, in words.
        seed: None where nothing is left to chance.
        dataset: What it was trained on.
        train_rows: On how many of its rows.
        val_accuracy: Of the weights that are kept.
        test_accuracy: Of the same; None while the test set was not read.
        train_seconds: Training, without validation.
        search_seconds: Choosing the settings, where that is part of the method.
        test_seconds: Predicting the test examples; None for runs of earlier versions.
        device: What computed.
        folder: What it left; None for what is read from the record of a sweep.
        state: `finished`, or why it is not.
        history: A net's epochs, where they are asked for.
        created: When it was started, seconds since the epoch.
        commands: What trains the same again, and what else can be done with it; by purpose.
        facts: What else is on record, by name.
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
    test_accuracy: float | None
    train_seconds: float
    search_seconds: float | None = None
    test_seconds: float | None = None
    device: str
    folder: Storage | None = dataclasses.field(default=None, repr=False)
    state: str = FINISHED
    history: tuple[EpochRow, ...] = ()
    created: float | None = None
    commands: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def traits(self) -> dict[str, Any]:
        """What makes it another model than one with other traits."""
        relevant = {k: v for k, v in self.settings.items() if k not in IRRELEVANT}
        return {**relevant, TRAINING_DATA: fingerprint(self.dataset)}

    @property
    def best(self) -> EpochRow:
        """The epoch whose weights are kept, of a record that has epochs."""
        best = best_row(self.history, self.settings["best_by"])
        assert best is not None
        return best

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Its answers to the test examples.

        Raises:
            InputError: It kept none.
            JobError: They are not those of its result.
        """
        # A finished one has a folder.
        folder = cast("Storage", self.folder)
        try:
            found = read_predictions(folder)
        except FileNotFoundError:
            raise InputError(
                "RUN",
                self.name,
                f"has no {PREDICTIONS_FILE}, as runs of earlier versions; train it again",
            ) from None
        except ValueError as error:
            raise _mistrusted(folder, PREDICTIONS_FILE, error) from error
        if found.accuracy != self.test_accuracy:
            other = f"its accuracy is {found.accuracy:.4f}, that of {RESULT_FILE} "
            raise _mistrusted(folder, PREDICTIONS_FILE, f"{other}{self.test_accuracy:.4f}")
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Records that differ by the seed alone. `title` tells them from other groups."""

    title: str
    members: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The member with the smallest seed."""
        return self.members[0]

    @property
    def best(self) -> Record:
        """The member with the best validation accuracy."""
        return max(self.members, key=lambda member: member.val_accuracy)

    def values(self, name: str) -> list[float]:
        """A field of all members that have it."""
        found = [getattr(member, name) for member in self.members]
        return [value for value in found if value is not None]

    def mean(self, name: str) -> tuple[float, float | None] | None:
        """Its mean and standard deviation; None where no member has it."""
        values = self.values(name)
        return mean_sd(values) if values else None


def open_finished(name: str, storage: str = "runs") -> Record:
    """Opens a finished run or baseline, by its name below `storage` or by a path, which has a `/`.

    Of a run, `last` or the beginning of its name will do.

    Raises:
        InputError: There is none, or it has not finished.
        JobError: Its record can't be trusted.
    """
    name, folder, content = find(name, storage, RUNS)
    with usable(folder.uri):
        below = [] if CONFIG_FILE in content else [n for n in content if _is_method(folder.at(n))]
    if CONFIG_FILE in content:
        return _of_run(run_at(folder), name)
    if RESULT_FILE in content:
        return of_baseline(folder, name)
    if below:
        raise InputError("RUN", name, f"holds several; name one, such as {folder.at(below[0]).uri}")
    hint = like(name, storage) or "; `lenet runs` lists them"
    raise InputError("RUN", name, f"no run in {folder.uri}{hint}")


def _is_method(folder: Storage) -> bool:
    return RESULT_FILE in folder.list()


def _of_run(run: Run, name: str) -> Record:
    result = run.result()
    if result is None:
        raise InputError("RUN", name, f"has not finished; let it train on: {run.command}")
    figures = _figures(run.storage, result)
    return of_net(name, run.config, dataset_of(run), folder=run.storage, **figures)


def of_net(name: str, config: TrainConfig, dataset: Dataset, **others: Any) -> Record:
    """The record of a net.

    Args:
        name: What it is called here.
        config: What it was trained with.
        dataset: What it was trained on.
        **others: What came of it, by the names of `Record`.
    """
    return Record(
        name=name,
        model=config.model,
        features=NET_FEATURES,
        settings={k: v for k, v in config.fixed_dict().items() if k != "seed"},
        how=f"{counted(config.epochs, 'epoch')}, batch {config.batch_size}, {config.optimizer} "
        f"{config.learning_rate:g}",
        seed=config.seed,
        dataset=dataset,
        train_rows=config.limit_train or training_rows(dataset),
        **others,
    )


def of_baseline(folder: Storage, name: str) -> Record:
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
        raise _mistrusted(folder, RESULT_FILE, repr(error)) from error
    components = settings["components"]
    return Record(
        name=name,
        model=model,
        features=features + (f", {components} components" if components else ""),
        settings={**settings, "train_rows": train_rows},
        how=", ".join(f"{key} {value}" for key, value in chosen.items()),
        seed=None,
        dataset=kept_dataset(folder),
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
        raise _mistrusted(folder, RESULT_FILE, repr(error)) from error


def _mistrusted(folder: Storage, name: str, why: object) -> JobError:
    return JobError(f"{folder.uri}/{name} can't be trusted: {why}")


def training_rows(dataset: Dataset) -> int:
    """Rows of a data set that train; the others validate."""
    return dataset.first_validation_row


def fingerprint(dataset: Dataset) -> str:
    """Tells training data from others of the same name."""
    joined = "".join(file.sha256 for file in dataset.train_files)
    if dataset.validation_rows is not None:
        joined += f" {dataset.validation_rows}"
    return hashlib.sha256(joined.encode()).hexdigest()[:8]


def check_comparable(records: Sequence[Record], field: str = "RUN") -> None:
    """Raises InputError, naming `field`, where records are of different test examples."""
    first = records[0]
    for record in records:
        if record.dataset.test_files != first.dataset.test_files:
            mine, other = record.dataset.name, first.dataset.name
            raise InputError(
                field,
                record.name,
                f"was trained on {mine}, but {first.name} on {'another ' * (mine == other)}{other};"
                " figures of different data do not compare",
            )


def groups_of(records: Sequence[Record]) -> list[Group]:
    """The records by settings and training data, in the order given, each group by its seeds."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(json.dumps(record.traits, sort_keys=True), []).append(record)
    groups = [tuple(sorted(g, key=lambda r: (r.seed or 0, r.name))) for g in found.values()]
    titles = [_title(members[0], [other[0] for other in groups]) for members in groups]
    return [
        Group(title=title, members=members) for title, members in zip(titles, groups, strict=True)
    ]


def check_seeds(groups: Sequence[Group]) -> None:
    """Raises InputError where two differ by nothing: the second tells nothing of other seeds."""
    for group in groups:
        for one, other in itertools.pairwise(group.members):
            if one.seed == other.seed:
                raise InputError(
                    "RUN",
                    other.name,
                    f"is trained like {one.name}, with the same seed; name one of them, or train "
                    "with another --seed",
                )


def differing(records: Sequence[Record]) -> list[str]:
    """The traits in which records differ, in the order of the first one's."""
    return [
        name
        for name in records[0].traits
        if len({json.dumps(record.traits.get(name), sort_keys=True) for record in records}) > 1
    ]


def _title(record: Record, others: Sequence[Record]) -> str:
    """The model's name, with the settings that tell it from others of that name."""
    names = differing([record, *(other for other in others if other.model == record.model)])
    return ", ".join(
        [record.model, *(f"{name.replace('_', ' ')} {record.traits[name]}" for name in names)]
    )
