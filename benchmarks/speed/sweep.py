"""What a sweep costs beside the training in it, and against what a user would write instead.

    python -m benchmarks.speed.sweep overhead --pairs 5  # ours, nested runs, KerasTuner, in turn
    python -m benchmarks.speed.sweep efficiency --runs 5  # 16 trials of about 15 s of training each
    python -m benchmarks.speed.sweep asha --seeds 5  # ASHA against FIFO, at what accuracy
    python -m benchmarks.speed.sweep --table overhead  # prints the table of the kept figures

All sides of a comparison train the same LeNet5 with the same settings on the same rows, validate on
the same 12,000 examples after each epoch, and start from nothing: every measurement is a whole
command. KerasTuner tries one trial after another on all processors, with Keras' own `fit` (several
steps in one call, oneDNN on); it is no dependency, but goes into a folder beside the data, as
pinned in peers.txt. The nested side runs one Ray Train run of one worker for each trial, two at a
time, with this project's engine inside, so that the difference is the start of a run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import circumstances, compared, keep, kept_rounds, ratio
from benchmarks.kit.peers import peer_packages
from benchmarks.speed.workers import PEERS as PINNED
from benchmarks.speed.workers import training_rows
from job.storage.open import open_storage
from job.text import counted
from tuning.records import FAILED, SEARCH, STOPPED, Sweep, read_sweep

RESULTS = Path(__file__).parents[2] / "docs" / "results"
BATCH = 64
# Of training in each trial of the study of efficiency.
TRIAL_SECONDS = 15.0
PACKAGES = ("tensorflow", "keras", "ray")
# Ray's processes give way to others by default; KerasTuner's does not.
EQUAL = {"RAY_worker_niceness": "0"}


@dataclasses.dataclass(frozen=True)
class Size:
    """How many trials of how many epochs over how many rows."""

    trials: int
    epochs: int
    rows: int

    @property
    def rates(self) -> list[float]:
        """A learning rate for each trial."""
        return [round(0.02 + 0.005 * i, 6) for i in range(self.trials)]


def ours(size: Size, storage: Path) -> Sweep:
    """The trials as a sweep."""
    space = storage / "space.toml"
    space.write_text(f"[learning_rate]\nvalues = {size.rates}\n")
    run(
        *("-m", "tuning.cli", "sweep", "--search", "grid", "--space", space, "--name", "s"),
        *("--recipe", "quick-1", "--batch-size", BATCH, "--max-epochs", size.epochs),
        *("--scheduler", "fifo", "--limit-train", size.rows),
        *("--storage", storage, "--address", "local"),
    )
    return read_sweep(open_storage(str(storage)).at("s"))


def run(*arguments: Any, **environment: str) -> float:
    """Runs Python to its end; returns the seconds that it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **EQUAL, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stderr[-4000:]}\n{arguments} exited {done.returncode}")
    return time.perf_counter() - began


def seconds_of(side: str, size: Size) -> float:
    """Seconds of a whole command."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "ours":
            began = time.perf_counter()
            ours(size, Path(folder))
            return time.perf_counter() - began
        path = os.pathsep.join(
            [str(peer_packages(PINNED)), *filter(None, [os.getenv("PYTHONPATH")])]
        )
        settings = json.dumps({"size": dataclasses.asdict(size), "folder": folder})
        return run("-m", __spec__.name, "--peer", side, settings, PYTHONPATH=path)


def nested(size: Size, folder: str) -> None:
    """The trials as Ray Tune trials of which each starts a Ray Train run."""
    from ray import tune

    from cluster.connection import connected
    from job.runs.run import prepare_run
    from tuning.trials.nested import train_nested

    def trial(point: dict[str, Any]) -> None:
        given = {"limit_train": size.rows, "epochs": size.epochs, "batch_size": BATCH}
        given |= {"learning_rate": point["rate"], "name": f"r{point['rate']}", "storage": folder}
        for epoch in train_nested(
            prepare_run({**given, "recipe": "quick-1", "cpus_per_worker": 1})
        ):
            tune.report({"val_accuracy": epoch.history[-1].val_accuracy})

    with connected("local"):
        tuner = tune.Tuner(
            tune.with_resources(trial, {"memory": 1}),
            param_space={"rate": tune.grid_search(size.rates)},
            tune_config=tune.TuneConfig(max_concurrent_trials=os.cpu_count()),
            run_config=tune.RunConfig(storage_path=f"{folder}/tune", verbose=0),
        )
        failed = [result.error for result in tuner.fit() if result.error]
        if failed:
            raise failed[0]


def keras_tuner(size: Size, folder: str) -> None:
    """The trials as a user of KerasTuner would write them."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    import keras
    import keras_tuner

    from job.data.catalogue import CATALOGUE
    from job.data.sources import obtain
    from job.data.splits import training_splits
    from job.models import build_model

    train = training_rows(size.rows)
    validation = training_splits(obtain("mnist"), CATALOGUE["mnist"], size.rows)[1]

    def build(hp: Any) -> keras.Model:
        model = build_model("lenet5", seed=1)
        steps = -(-size.rows // BATCH) * size.epochs
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            steps - steps // 10,
            warmup_target=hp.Choice("learning_rate", size.rates),
            warmup_steps=steps // 10,
        )
        model.compile(
            keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            steps_per_execution=50,
        )
        return model

    tuner = keras_tuner.RandomSearch(
        build, "val_accuracy", max_trials=size.trials, seed=1, directory=folder
    )
    tuner.search(
        train.images / 255.0,
        train.labels,
        batch_size=BATCH,
        epochs=size.epochs,
        validation_data=(validation.images / 255.0, validation.labels),
        verbose=0,
    )


PEERS = {"nested": nested, "keras_tuner": keras_tuner}


def overhead(pairs: int) -> dict[str, Any]:
    """Ours against the others, in turn."""
    size = Size(trials=4, epochs=1, rows=24_000)
    peer_packages(PINNED)
    measured = kept_rounds(
        f"sweep-overhead-{pairs}",
        pairs,
        lambda number: {side: seconds_of(side, size) for side in ("ours", *PEERS)},
    )
    rows = [
        {"against": side, **compared([(one[side], one["ours"]) for one in measured])}
        for side in PEERS
    ]
    return {**about(size), "rows": rows}


def efficiency(runs: int) -> dict[str, Any]:
    """The share of a sweep's time, on all cores, that is training."""
    size = Size(trials=16, epochs=1, rows=30_000)
    with tempfile.TemporaryDirectory() as folder:
        first = ours(dataclasses.replace(size, trials=os.cpu_count()), Path(folder))
    an_epoch = statistics.mean(trial.outcome.train_seconds for trial in first.trials)
    # What is paid once weighs the more the faster a machine is; trials take as long everywhere.
    size = dataclasses.replace(size, epochs=max(1, round(TRIAL_SECONDS / an_epoch)))
    rows = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            sweep = ours(size, Path(folder))
            wall = time.time() - began
        found = [trial.outcome for trial in sweep.trials]
        training = sum(one.train_seconds for one in found)
        steps = sum(row.seconds for one in found for row in one.history)
        extra = [one.seconds - one.train_seconds for one in found]
        cores = os.cpu_count()
        rows.append(
            {
                "wall": wall,
                "training": training,
                "efficiency": training / cores / wall,
                "before": min(one.started for one in found) - began,
                "after": began + wall - max(one.started + one.seconds for one in found),
                "efficiency_of_steps_alone": steps / cores / wall,
                # A core's first trial loads the data and compiles.
                "first_overheads": sorted(extra)[-cores:],
                "warm_overheads": sorted(extra)[:-cores],
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {**about(size), "rows": rows}


def asha(seeds: int) -> dict[str, Any]:
    """ASHA against FIFO: the same 16 points, time and best validation accuracy."""
    rows = []
    for seed in range(1, seeds + 1):
        row: dict[str, Any] = {"seed": seed}
        for scheduler in ("fifo", "asha"):
            with tempfile.TemporaryDirectory() as folder:
                row[scheduler] = run(
                    *("-m", "tuning.cli", "sweep", "--model", "ffnn", "--trials", 16),
                    *("--max-epochs", 9, "--limit-train", 4_000, "--seed", seed),
                    *("--scheduler", scheduler, "--storage", folder, "--name", "s"),
                    *("--address", "local"),
                )
                sweep = read_sweep(open_storage(folder).at("s"))
            found = [t.outcome for t in sweep.trials if t.plan.kind == SEARCH]
            row[f"{scheduler}_best"] = max(o.best.val_accuracy for o in found if o.best)
            row[f"{scheduler}_epochs"] = sum(len(o.history) for o in found)
            row[f"{scheduler}_stopped"] = sum(o.state in (STOPPED, FAILED) for o in found)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return {**about(Size(16, 9, 4_000)), "model": "ffnn", "rows": rows}


def about(size: Size) -> dict[str, Any]:
    return {**circumstances(*PACKAGES), "size": dataclasses.asdict(size)}


def conditions(document: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"{document['date']}, {document['device']}; {packages}."


def overhead_table(document: dict[str, Any]) -> str:
    names = {"nested": "a Ray Train run in each trial", "keras_tuner": "KerasTuner, `fit`"}
    lines = ["| against | ours, s | its, s | ratio (min–max) |", "|---|---|---|---|"]
    for row in document["rows"]:
        lines.append(
            f"| {names[row['against']]} | {row['theirs']:.0f} | {row['ours']:.0f} | {ratio(row)} |"
        )
    size, pairs = Size(**document["size"]), len(document["rows"][0]["pairs"])
    return "\n".join(
        [
            *lines,
            "",
            f"Whole commands, {size.trials} trials of {size.epochs} epoch over {size.rows:,} rows, "
            f"LeNet5, batch {BATCH}; medians of {pairs} rounds in turn; {conditions(document)}",
        ]
    )


def efficiency_table(document: dict[str, Any]) -> str:
    rows, size = document["rows"], Size(**document["size"])

    def spread(values: Sequence[float], form: str) -> str:
        low, middle, high = min(values), statistics.median(values), max(values)
        return f"{middle:{form}} ({low:{form}}–{high:{form}})"

    def shown(key: str, form: str) -> str:
        return spread([row[key] for row in rows], form)

    warm = [value for row in rows for value in row["warm_overheads"]]
    first = [value for row in rows for value in row["first_overheads"]]
    return "\n".join(
        [
            "| what | median (min–max) |",
            "|---|---|",
            f"| whole command, s | {shown('wall', '.0f')} |",
            f"| before the first trial begins, s | {shown('before', '.1f')} |",
            f"| after the last one: test set, figures, exit, s | {shown('after', '.1f')} |",
            f"| training and validation in it, core-s | {shown('training', '.0f')} |",
            f"| share of the cores' time | {shown('efficiency', '.2f')} |",
            f"| of training steps alone | {shown('efficiency_of_steps_alone', '.2f')} |",
            f"| overhead of a warm trial, s | {spread(warm, '.2f')} |",
            f"| of a core's first trial, s | {spread(first, '.1f')} |",
            "",
            f"{size.trials} trials of {counted(size.epochs, 'epoch')} over {size.rows:,} rows, "
            f"LeNet5, batch {BATCH}, {len(rows)} runs; {conditions(document)}",
        ]
    )


def asha_table(document: dict[str, Any]) -> str:
    rows = document["rows"]
    lines = [
        "| seed | FIFO, s | ASHA, s | time saved | FIFO's best val_accuracy | ASHA's | epochs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['seed']} | {row['fifo']:.0f} | {row['asha']:.0f} "
            f"| {1 - row['asha'] / row['fifo']:.0%} | {row['fifo_best']:.2%} "
            f"| {row['asha_best']:.2%} | {row['asha_epochs']} of {row['fifo_epochs']} |"
        )
    saved = statistics.median(1 - row["asha"] / row["fifo"] for row in rows)
    size = Size(**document["size"])
    spread = statistics.stdev(row["fifo_best"] for row in rows) if len(rows) > 1 else float("nan")
    apart = statistics.fmean(row["fifo_best"] - row["asha_best"] for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            f"Median time saved {saved:.0%}; FIFO's best is {apart:.2%} higher on average, and has "
            f"a standard deviation of {spread:.2%} over seeds. FFNN, {size.trials} trials of "
            f"{size.epochs} epochs over {size.rows:,} rows; {conditions(document)}",
        ]
    )


STUDIES = {
    "overhead": (overhead, overhead_table),
    "efficiency": (efficiency, efficiency_table),
    "asha": (asha, asha_table),
}


def table(name: str) -> str:
    """The kept figures of a study as Markdown."""
    return STUDIES[name][1](json.loads((RESULTS / f"sweep-{name}.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES, nargs="?")
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--pairs", "--runs", "--seeds", type=int, default=5, dest="count")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        side, settings = arguments.peer
        given = json.loads(settings)
        PEERS[side](Size(**given["size"]), given["folder"])
        return
    if not arguments.study:
        parser.error(f"name a study: {', '.join(STUDIES)}")
    if not arguments.table:
        document = STUDIES[arguments.study][0](arguments.count)
        name = f"sweep-{arguments.study}"
        keep(document, RESULTS / f"{name}.json", f"{name}-{arguments.count}")
    print(table(arguments.study))


if __name__ == "__main__":
    main()
