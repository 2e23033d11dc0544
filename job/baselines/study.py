"""`lenet baselines`: classical methods on the split of the nets, each kept like a finished run.

    NAME/baselines.json        settings, data set, and when it was begun
    NAME/METHOD/result.json    what came of a method; written last: it marks a finished one
    NAME/METHOD/data.json, test_predictions.parquet    as of a run

Finished methods are not trained again, so that a study that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from job.baselines.methods import BASELINE_FIELDS, METHODS, BaselineConfig
from job.baselines.training import check_trainable, train_and_test
from job.compare.record import Record, of_baseline, open_finished
from job.config.fields import check_given, check_unchanged
from job.data.catalogue import Dataset
from job.data.examples import Examples, check_same, open_examples
from job.errors import InputError, StopRequestedError
from job.extras import check_installed
from job.results.predictions import write_predictions
from job.runs.data import keep_dataset
from job.runs.folder import Folder, Kind, find_folder, usual_for, with_data
from job.runs.run import RESULT_FILE
from job.storage.base import Storage
from job.storage.documents import read_document, to_json
from job.text import duration
from job.training.progress import NoteTaker

BASELINES_FILE = "baselines.json"
KIND = Kind(
    noun="baselines",
    verb="baselines",
    shown="report",
    busy="trains these methods",
    mark=BASELINES_FILE,
    end=None,
)

# As `cluster.tasks.run_tasks`: of a function, what all calls share, names and who asks to stop.
RunTasks = Callable[..., Iterator[tuple[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study of baselines and its place.

    Attributes:
        config: Its settings, with the name filled in.
        examples: Its data set.
        folder: Where it is kept.
        beside: Record nets that are shown with it.
    """

    config: BaselineConfig
    examples: Examples
    folder: Folder
    beside: tuple[Record, ...]

    @property
    def command(self) -> str:
        """What to type to continue."""
        chosen = ",".join(self.config.methods)
        usual = chosen == ",".join(METHODS)
        return self.folder.command + ("" if usual else f" --methods {chosen}")

    def at(self, method: str) -> Storage:
        """Where a method is kept."""
        return self.folder.storage.at(method)

    def missing(self) -> list[str]:
        """Methods that have no result yet."""
        return [name for name in self.config.methods if RESULT_FILE not in self.at(name).list()]


def prepare_study(
    given: Mapping[str, Any],
    beside: Sequence[str] = (),
    *,
    usual: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Study:
    """Finds out which study `lenet baselines` is to start or continue. Writes nothing.

    Args:
        given: The settings that the user gave, by field name.
        beside: Record runs to show in the same table, as `open_finished` takes them.
        usual: Those of a new study where nothing is given; where it is kept in any case.
        overwrite: Start anew where one of that name exists.

    Raises:
        InputError: A setting is unusable, the name is taken, or a run does not compare.
        JobError: No source has the data set, or a run's record can't be trusted.
    """
    usual = usual or {}
    check_given({**usual, **given}, BASELINE_FIELDS)
    check_installed("baselines", "lenet baselines")
    wanted = BaselineConfig(**with_data({**usual, **given}))
    name = wanted.name or _usual_name(wanted)
    counted = usual_for({"name": name, **given}, usual, overwrite=overwrite)
    given = with_data({**counted, **given})
    config = BaselineConfig(**given)
    folder = find_folder(
        KIND, name, config.storage, patience=config.storage_timeout, overwrite=overwrite
    )
    begun = None
    if not folder.is_new:
        config, begun = _continued(folder.storage, name, given)
    examples = open_examples(config.dataset, config.data, patience=config.storage_timeout)
    if begun:
        check_same(examples.dataset, begun, config.data, f"study {name!r}")
    train, _ = examples.training(config.limit_train)
    check_trainable(train)
    shown = tuple(open_finished(run, config.storage) for run in beside)
    for run in shown:
        _check_split(run, examples, len(train))
    config = dataclasses.replace(config, name=name)
    return Study(config=config, examples=examples, folder=folder, beside=shown)


def _usual_name(config: BaselineConfig) -> str:
    rows = f"-{config.limit_train}" if config.limit_train else ""
    return f"baselines-{config.dataset}{rows}"


def _continued(
    folder: Storage, name: str, given: Mapping[str, Any]
) -> tuple[BaselineConfig, Dataset]:
    try:
        document = read_document(folder, BASELINES_FILE)
        dataset = Dataset.from_dict(document["dataset"])
        # Of the methods those of now are meant: all of them, where none are named.
        stored = {k: v for k, v in document["config"].items() if k != "methods"}
        config, begun = BaselineConfig(**{**stored, **given}), BaselineConfig(**stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("--name", folder.uri, f"can't be continued: {error}") from error
    check_unchanged(f"study {name!r}", begun.fixed_dict(), config.fixed_dict(), given)
    return config, dataset


def _check_split(run: Record, examples: Examples, rows: int) -> None:
    if run.dataset != examples.dataset:
        raise InputError(
            "RUN",
            run.name,
            f"was trained on {run.dataset.name}, not on this {examples.dataset.name}; figures of "
            "different data do not compare",
        )
    if run.train_rows != rows:
        raise InputError(
            "RUN",
            run.name,
            f"was trained on {run.train_rows:,} rows, these on {rows:,}; name another, or give "
            "--limit-train",
        )


def run_baselines(
    study: Study,
    progress: NoteTaker,
    stop_requested: Callable[[], int],
    workers: Callable[[], AbstractContextManager[RunTasks]],
) -> list[Record]:
    """Trains and tests the methods that are missing, each by a worker of its own.

    Args:
        study: What to do.
        progress: Is told what came of each method.
        stop_requested: Asked often; a signal's number ends the study, which can go on later.
        workers: Holds those who do tasks while its block runs, and gives what hands tasks to them,
            as `cluster.tasks.on_cluster` does.

    Returns:
        All methods that were asked for.

    Raises:
        InputError: There are no workers, or another process trains these methods; nothing was
            written.
        StopRequestedError: A stop was requested.
        JobError: A method failed.
    """
    if study.folder.is_new or study.missing():
        document = {
            "created": time.time(),
            "config": study.config.to_dict(),
            "dataset": study.examples.dataset.to_dict(),
        }
        with workers() as run_tasks, study.folder.claimed(document):
            _train(study, progress, stop_requested, run_tasks)
    if missing := study.missing():
        raise StopRequestedError(
            f"stopped with {', '.join(missing)} to do; continue with: {study.command}",
            stop_requested(),
        )
    return [of_baseline(study.at(name), name) for name in study.config.methods]


def _train(
    study: Study, progress: NoteTaker, stop_requested: Callable[[], int], run_tasks: RunTasks
) -> None:
    began = time.monotonic()
    task = (study.examples, study.config.limit_train)
    # Machines take longer than neighbours, and stand last.
    for name, outcome in run_tasks(train_and_test, task, study.missing()[::-1], stop_requested):
        folder = study.at(name)
        keep_dataset(folder, study.examples.dataset)
        write_predictions(folder, outcome.predictions)
        folder.write(RESULT_FILE, to_json(outcome.result))
        method, seconds = of_baseline(folder, name), time.monotonic() - began
        progress.note(
            f"{name}: validation {method.val_accuracy:.2%}, test {method.test_accuracy:.2%}; "
            f"{method.how}  {duration(seconds)}"
        )
