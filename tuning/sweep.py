"""One sweep from its space to its winner: `run_sweep`. `ray submit` runs this file."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

if __name__ == "__main__":
    # `ray submit` runs a file: this one is a door to the command, wherever it is installed.
    installed = entry_points(group="console_scripts", name="lenet")
    if not installed:
        print("error: lenet is not installed here; `make venv` installs it", file=sys.stderr)
        sys.exit(2)
    [command] = installed
    command.load()(["sweep", *sys.argv[1:]])

import dataclasses
import itertools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.autoscaling import autoscaled
from cluster.capacity import Room, check_gpus, gpu_share, room
from cluster.connection import connected
from job.config.config import AS_BEFORE, TrainConfig, is_fixed
from job.config.fields import check_unchanged, flag
from job.config.recipes import today
from job.config.resolve import over_recipe, resolve
from job.config.xla import launched
from job.data.catalogue import Dataset
from job.data.convert import Conversion
from job.data.examples import open_examples
from job.errors import InputError, JobError, StopRequestedError
from job.extras import check_installed
from job.models.architecture import Architecture, source_of
from job.models.source import Source, flag_of, is_own, short_name
from job.runs.folder import Folder, Kind, find_folder, usual_for, with_data
from job.runs.model import architecture_file, check_source, kept_architecture, with_source
from job.runs.names import in_full, is_word_for, made_name
from job.runs.run import RUNS, sha256_of_bytes
from job.runs.start import START_FILE, to_bytes
from job.storage.base import Storage
from job.text import counted
from job.trackers.teller import Tellers, telling
from job.trackers.tracked import check_trackers
from job.training.beginning import start_of
from job.training.building import architecture_of
from job.versions import versions
from tuning.conductor import Conductor
from tuning.config import SweepConfig, check_share, epochs_of, split
from tuning.display import SweepDisplay, winner_lines
from tuning.journal import Journal
from tuning.records import (
    OUTCOMES,
    SWEEP_FILE,
    TRIALS,
    WINNER_FILE,
    Sweep,
    Winner,
    document_of,
    read_sweep,
)
from tuning.space.search import GridSearch, open_search
from tuning.space.space import DEFAULT, Space, parse_space, read_space
from tuning.tracking import SweepTrackers

KIND = Kind(
    noun="sweep",
    verb="sweep",
    shown="report",
    busy="runs this sweep",
    mark=SWEEP_FILE,
    end=WINNER_FILE,
    # A plan that is made again may be another; nothing of the old one's may be left then.
    first=(OUTCOMES, TRIALS),
)
# Ray Tune's own files, messages and handlers: nothing is restored from the first, and the others
# would get in the way of the table and of Ctrl-C.
TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    # On a cluster that is started now. Trials have variables of their own, PL_DISABLE_FORK=1 among
    # them, and Ray starts processes for those: the ones that it keeps for others would be idle.
    "RAY_prestart_worker_first_driver": "0",
}
# With a handler of Ray's, Ctrl-C would not let trials take their checkpoints.
NEEDED = {"TUNE_DISABLE_SIGINT_HANDLER": "1"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSweep:
    """A sweep and its place.

    Attributes:
        config: Its settings.
        space: What it searches.
        trials: How many settings it tries.
        folder: Where it is kept.
        sweep: What it has done so far; for a new one nothing, and its hardware is not known yet.
        architecture: Of the user's own model; None for a built-in one.
        start: The weights that all trials begin with, if they are not fresh, as they are kept.
        address: The Ray cluster, as `--address` names it.
        max_failures: How often the processes of one trial may be lost.
    """

    config: SweepConfig
    space: Space
    trials: int
    folder: Folder
    sweep: Sweep
    architecture: Architecture | None
    start: bytes | None
    address: str | None
    max_failures: int

    @property
    def epochs(self) -> int:
        """Of a whole trial."""
        return epochs_of(self.config, self.sweep.base)

    @property
    def one_trial(self) -> TrainConfig:
        """A run with the workers of one trial."""
        return _one_trial(self.config, over_recipe(self.sweep.base).device)


def prepare_sweep(
    given: Mapping[str, Any],
    *,
    usual: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> OpenSweep:
    """Finds out which sweep `lenet sweep` is to start or continue. Writes nothing.

    Args:
        given: The settings that the user gave, by field name.
        usual: Those of a new sweep where nothing is given; where it is kept in any case.
        overwrite: Start anew where a sweep of that name exists.

    Raises:
        InputError: A setting, the space or the tracker is unusable, or the name is taken.
    """
    given = {**usual_for(given, usual or {}, overwrite=overwrite), **given}
    source, given = with_source(with_data(given))
    config, common, base = split(given)
    if config.search == "optuna":
        check_installed("optuna", "--search", config.search)
    name = common.name or made_name(f"sweep-{short_name(common.model)}", common.storage)
    folder = find_folder(
        KIND, name, common.storage, patience=common.storage_timeout, overwrite=overwrite
    )

    def opened(
        config: SweepConfig,
        space: Space,
        trials: int,
        sweep: Sweep,
        architecture: Architecture | None,
        start: bytes | None = None,
    ) -> OpenSweep:
        check_trackers(over_recipe(sweep.base))
        return OpenSweep(
            config=config,
            space=space,
            trials=trials,
            folder=folder,
            sweep=sweep,
            architecture=architecture,
            start=start,
            address=common.address,
            max_failures=common.max_failures,
        )

    if not folder.is_new:
        config, sweep = _continued(folder.storage, given, base, source)
        check_share(config)
        space = parse_space(sweep.space, f"{folder.storage.uri}/{SWEEP_FILE}", is_kept=True)
        if "space" in given and read_space(given["space"]).without(base) != space:
            raise InputError("--space", config.space, f"is not the space of sweep {name!r}")
        trials = _trials(config, space, sweep.base)
        architecture = kept_architecture(folder.storage, f"sweep {name!r}", sweep.base, source)
        return opened(config, space, trials, sweep, architecture)
    check_share(config)
    space = _space(config, base)
    trials = _trials(config, space, base)
    examples = open_examples(common.dataset, common.data, Conversion.of(common))
    examples.check_classes(common.data)
    architecture = None
    if source:
        architecture = architecture_of(source, over_recipe(base), examples.dataset)
        base["architecture_sha256"] = architecture.sha256
    if common.start_from:
        base["start_from"] = in_full(common.start_from, common.storage, RUNS)
    start = _start(common, space, base, architecture, examples.dataset)
    if start is not None:
        base["start_sha256"] = sha256_of_bytes(start)
    sweep = Sweep(
        name=name,
        created=time.time(),
        config=config.to_dict(),
        base=base,
        space=space.to_document(),
        dataset=examples.dataset.to_dict(),
        hardware="",
        versions=versions(),
    )
    return opened(config, space, trials, sweep, architecture, start)


def _start(
    common: TrainConfig,
    space: Space,
    base: Mapping[str, Any],
    architecture: Architecture | None,
    dataset: Dataset,
) -> bytes | None:
    """What all trials begin with, as it is kept with the sweep; None for fresh weights."""
    config = dataclasses.replace(over_recipe(base), storage=common.storage)
    if config.start_from and (bad := sorted(space.fields & {"model", "precision", "start_from"})):
        raise InputError(
            flag("start_from"), config.start_from, f"goes with one {bad[0]}; do not search it"
        )
    given = start_of(config, architecture, dataset)
    return None if given is None else to_bytes(given)


def _continued(
    folder: Storage, given: Mapping[str, Any], base: Mapping[str, Any], source: Source | None
) -> tuple[SweepConfig, Sweep]:
    try:
        sweep = read_sweep(folder)
        stored = SweepConfig(**sweep.config)
        over_recipe(sweep.base)
        # Decided by earlier versions without writing it down.
        sweep = dataclasses.replace(sweep, base={"xla": AS_BEFORE["xla"], **sweep.base})
    except (ValueError, TypeError, InputError) as error:
        raise InputError("--name", folder.uri, f"can't be continued: {error}") from error
    config = SweepConfig(
        **{**sweep.config, **{k: v for k, v in given.items() if k in sweep.config}}
    )
    what = f"sweep {sweep.name!r}"
    if is_word_for(base.get("start_from"), sweep.base.get("start_from")):
        # Which run it stood for was decided when this one began.
        base = {**base, "start_from": sweep.base["start_from"]}
    if "recipe" in base and today(sweep.base.get("recipe", "")) == base["recipe"]:
        # What that name meant when this one began.
        base = {**base, "recipe": sweep.base["recipe"]}
    if source and source.name == sweep.base.get("model"):
        check_source(what, source, sweep.base.get("model_sha256"))
    check_unchanged(what, stored.fixed_dict(), config.fixed_dict(), given)
    common = {k: v for k, v in base.items() if is_fixed(k)}
    check_unchanged(what, sweep.base, common, base)
    # Of what does not decide the result, this command's word counts.
    return config, dataclasses.replace(sweep, base={**sweep.base, **base})


def _space(config: SweepConfig, base: Mapping[str, Any]) -> Space:
    if config.space:
        space = read_space(config.space)
        for parameter in space.parameters:
            if parameter.field in base:
                raise InputError(
                    flag(parameter.field),
                    base[parameter.field],
                    f"is searched by {config.space}; leave one of them out",
                )
            if parameter.field == "precision" and is_own(str(base.get("model", ""))):
                raise InputError(
                    "--space",
                    config.space,
                    "your own model is built for one precision; make a sweep for each",
                )
            for value in parameter.values:
                # What does not go with the common settings would fail in each trial.
                resolve({**base, parameter.field: value})
        return space
    space = parse_space(DEFAULT, "default").without(base)
    if not space.parameters:
        flags = ", ".join(map(flag, DEFAULT))
        raise InputError("--space", None, f"nothing is left to search; leave one of {flags} out")
    return space


def _trials(config: SweepConfig, space: Space, base: Mapping[str, Any]) -> int:
    if config.search != "grid":
        size = space.size(base)
        return config.wanted_trials if size is None else min(config.wanted_trials, size)
    points = len(GridSearch(space, base))
    if config.trials not in (None, points):
        raise InputError(
            "--trials",
            config.trials,
            f"the grid has {points} points; leave --trials out, or make the space smaller",
        )
    return points


def run_sweep(
    opened: OpenSweep,
    display: SweepDisplay,
    *,
    stop_requested: Callable[[], int] = lambda: 0,
    verbose: bool = False,
) -> tuple[Sweep, Winner]:
    """Runs a sweep to its winner.

    Args:
        opened: What to do.
        display: Follows it.
        stop_requested: Asked often; a signal's number ends the sweep, which can go on later.
        verbose: Let the frameworks log to the terminal.

    Raises:
        InputError: The cluster can't be reached or does not hold a trial, or another process runs
            this sweep; nothing was written.
        NoGpuError: As `check_gpus`; nothing was written.
        StopRequestedError: A stop was requested.
        JobError: A trial finds no GPU though it has a share of one, or no trial could be trained.
    """
    for name, value in TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(NEEDED)
    if opened.config.search != "grid" and opened.trials < opened.config.wanted_trials:
        display.note(f"the space has {counted(opened.trials, 'point')}; each is tried once")
    # Asked again, with certainty, by its lock; this spares a start of Ray in vain.
    opened.folder.check_free()
    with (
        connected(opened.address, verbose=verbose) as is_own,
        # One trial has to fit; what the others need, Ray Tune asks the autoscaler for.
        autoscaled(opened.one_trial, display, stop_requested),
    ):
        here = room()
        check_gpus(opened.one_trial, here, is_own=is_own)
        config, slots = _fitted(opened.config, gpu_share(opened.one_trial, here), here)
        if here.has_gpus and not config.share.gpus and not opened.folder.is_new:
            display.note("this sweep began without GPUs and goes on without them")
        base = _launched(opened, "gpu" if config.share.gpus else "cpu")
        sweep = dataclasses.replace(
            opened.sweep,
            config=config.to_dict(),
            base=base,
            hardware=opened.sweep.hardware or str(room()),
        )
        files = architecture_file(opened.architecture)
        if opened.start is not None:
            files[START_FILE] = opened.start
        with (
            opened.folder.claimed(document_of(sweep), files),
            telling(over_recipe(base).trackers) as tellers,
        ):
            conductor = _search(
                opened, sweep, config, slots, display, tellers, stop_requested, verbose
            )
            if stop_requested():
                again = flag_of(source_of(opened.architecture))
                raise StopRequestedError(
                    f"stopped with {len(conductor.outcomes)} of {opened.trials} trials done; "
                    f"continue with: {opened.folder.command}{again}",
                    stop_requested(),
                )
            if conductor.winner is None:
                raise JobError(_why_nobody_won(conductor))
            return read_sweep(opened.folder.storage), conductor.winner


def _one_trial(config: SweepConfig, device: str) -> TrainConfig:
    workers = config.workers_per_trial
    return TrainConfig(
        device=device,
        workers=str(workers),
        cpus_per_worker=config.cpus_per_trial and config.cpus_per_trial / workers,
        gpus_per_worker=None if config.gpus_per_trial is None else config.gpus_per_trial / workers,
    )


def _fitted(config: SweepConfig, gpus: float, here: Room) -> tuple[SweepConfig, int]:
    """The settings with the resources of a trial filled in, and how many trials fit at once.

    Args:
        config: The settings.
        gpus: Of each of its workers.
        here: Where they have to fit.
    """
    workers = config.workers_per_trial
    gpus *= workers
    config = dataclasses.replace(
        config, gpus_per_trial=gpus, cpus_per_trial=config.cpus_per_trial or float(workers)
    )
    slots = here.places(config.share) // workers
    if not slots:
        names_gpus = gpus and here.places(config.share._replace(gpus=0.0)) >= workers
        name = "gpus_per_trial" if names_gpus else "cpus_per_trial"
        raise InputError(
            flag(name), getattr(config, name), f"no trial of that size fits; there is {here}"
        )
    return config, slots


def _launched(opened: OpenSweep, kind: str) -> dict[str, Any]:
    """What all trials have in common, with XLA only if it is asked for.

    A process compiles for each batch size and optimizer that it meets, some 5 s each.
    """
    base = {**opened.sweep.base, "xla": bool(opened.sweep.base.get("xla"))}
    models = [p.values for p in opened.space.parameters if p.field == "model"] or [(None,)]
    for model in itertools.chain(*models):
        # Raises where it can't work.
        launched(over_recipe({**base, **({"model": model} if model else {})}), kind)
    return base


def _search(
    opened: OpenSweep,
    sweep: Sweep,
    config: SweepConfig,
    slots: int,
    display: SweepDisplay,
    tellers: Tellers,
    stop_requested: Callable[[], int],
    verbose: bool,
) -> Conductor:
    from tuning.trials.ray_tune import tune_with

    deadline = time.monotonic() + (config.time_budget or float("inf"))

    def is_over() -> bool:
        return time.monotonic() >= deadline

    seed = over_recipe(sweep.base).seed
    journal = Journal(opened.folder.storage, sweep)
    conductor = Conductor(
        opened.folder.storage,
        sweep,
        config,
        open_search(config, opened.space, sweep.base, seed),
        architecture=opened.architecture,
        trials=opened.trials,
        threads=config.share.threads,
        # Workers of a trial are processes of their own, and have their own shares.
        gpus=config.share.gpus if config.workers_per_trial == 1 else 0.0,
        journal=journal,
        is_over=is_over,
    )
    display.follow(conductor, slots)
    trackers = SweepTrackers(tellers, sweep, opened.folder.storage, conductor)
    if not verbose:
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="lenet-ray-tune-") as book:
        tune_with(
            conductor,
            config,
            display=display,
            trackers=trackers,
            slots=slots,
            epochs=opened.epochs,
            max_failures=opened.max_failures,
            book=book,
            stop_requested=stop_requested,
            is_over=is_over,
        )
    journal.write(conductor.trials)
    if conductor.winner:
        trackers.won(conductor.winner)
    return conductor


def _why_nobody_won(conductor: Conductor) -> str:
    errors = [outcome.error for outcome in conductor.outcomes.values() if outcome.error]
    return "no trial trained an epoch" + (f"; the first said: {errors[0]}" if errors else "")


def summary(sweep: Sweep, winner: Winner) -> str:
    """The last lines of a finished sweep."""
    plan = next(trial.plan for trial in sweep.trials if trial.plan.number == winner.trial)
    return f"{winner_lines(plan, winner)}\nreport          lenet report {sweep.name}"
