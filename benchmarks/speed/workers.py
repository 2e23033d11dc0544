"""Two workers against one, and against Ray's own example: LeNet5 on MNIST, float32, in turn.

    python -m benchmarks.speed.workers               # measures, keeps docs/results/workers.json
    python -m benchmarks.speed.workers --workers 4   # the same with four, keeps workers-4.json
    python -m benchmarks.speed.workers --table       # prints the table of the kept figures

Every measurement is a whole command with a Ray cluster of its own in this machine, and nothing is
pinned to a core. Rates are those of all epochs but the first, so without start-up, tracing and
compiling. Ours count the time in spans of training steps, as `history.csv` does; the example's
count that from an epoch's begin to its end, before its checkpoint. Nothing else is left out of the
time of the whole command, in which ours also validates, tests and draws.

1. Two workers of one core each against one worker of two, at one global batch. `--workers 4`: four
   of half a core each, also below.
2. Two such workers against `ray/train/examples/tf/tensorflow_mnist_example.py`, which the `ray`
   package holds, at the example's 64 images a worker. Its data pipeline, training function and
   trainer run as published; replaced are its data (our verified training rows instead of a
   download), the number of steps (a whole epoch instead of 70), the learning rate (ours) and its
   model (our LeNet5, layer by layer; `--own-model` keeps it). It needs `tf_keras`, because Keras
   3's `fit` fails under MultiWorkerMirroredStrategy; that goes into a folder of its own beside the
   data, as pinned in peers.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kit.paired import circumstances, compared, keep, kept_rounds, ratio
from benchmarks.kit.peers import peer_packages
from job.data.catalogue import CATALOGUE
from job.data.files import Split
from job.data.sources import obtain
from job.data.splits import training_splits
from job.models.builtin import lenet5

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PEERS = Path(__file__).parents[1] / "kit" / "peers.txt"
ONE_WORKER, EXAMPLE = "1 worker, 2 cores", "Ray's example"
CORES = 2
BATCH = 64
LEARNING_RATE = 0.01
UNITS = {"images_per_second": "images/s", "wall_seconds": "whole command, s"}

Measured = dict[str, float]


class Size(NamedTuple):
    """How much each command trains: `limit` rows, or all of them."""

    epochs: int
    limit: int | None


def lenet(workers: int, cpus: float, batch: int, size: Size) -> Measured:
    """`lenet train` on Ray, with plain SGD as the example's."""
    flags = {
        "--model": "lenet5",
        "--recipe": "notebook",
        "--learning-rate": LEARNING_RATE,
        "--epochs": size.epochs,
        "--batch-size": batch,
        "--workers": workers,
        "--cpus-per-worker": cpus,
        "--address": "local",
        "--name": "measured",
        **({"--limit-train": size.limit} if size.limit else {}),
    }
    command = [sys.executable, "-m", "tuning.cli", "train"]
    for name, value in flags.items():
        command += [name, str(value)]
    with tempfile.TemporaryDirectory() as folder:
        return measured([*command, "--storage", folder], Path(folder, "measured", "history.csv"))


def example(workers: int, batch: int, size: Size, own_model: bool) -> Measured:
    """Ray's example."""
    images = len(training_rows(size.limit))
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder, "history.csv")
        settings = {
            "epochs": size.epochs,
            "workers": workers,
            "batch_size": batch // workers,
            "steps_per_epoch": -(-images // batch),
            "lr": LEARNING_RATE,
            "limit": size.limit,
            "own_model": own_model,
            "history": str(history),
        }
        command, environment = example_command(settings)
        return measured(command, history, environment)


def example_command(settings: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The command of Ray's example, and what its environment needs.

    Args:
        settings: `workers`, `epochs`, `batch_size` (of a worker), `steps_per_epoch`, `lr`, `limit`
            (rows), `own_model` (leave it its own), `history` (the file to write); and
            `first_step`, a file for the time at which the first step has ended, if wanted.
    """
    path = os.pathsep.join([str(peer_packages(PEERS)), *filter(None, [os.getenv("PYTHONPATH")])])
    return [sys.executable, "-m", __spec__.name, "--peer", json.dumps(settings)], {
        "PYTHONPATH": path
    }


def measured(
    command: Sequence[str], history: Path, environment: dict[str, str] | None = None
) -> Measured:
    """Runs a training command to its end and reads the history that it leaves."""
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        # Not a pipe: a process that outlives the command could hold it open.
        code = subprocess.call(
            command, env={**os.environ, **(environment or {})}, stdout=said, stderr=said
        )
        wall = time.perf_counter() - began
        if code or not history.exists():
            said.seek(0)
            sys.exit(f"{said.read()[-4000:]}\n{shlex.join(command)} exited {code}")
    with history.open() as stream:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
    seconds = sum(row["seconds"] for row in rows[1:])
    images = sum(row["seconds"] * row["images_per_second"] for row in rows[1:])
    return {
        "images_per_second": images / seconds,
        "wall_seconds": wall,
        "accuracy": rows[-1]["accuracy"],
    }


def training_rows(limit: int | None) -> Split:
    return training_splits(obtain("mnist"), CATALOGUE["mnist"], limit)[0]


def peer(settings: dict[str, Any]) -> None:
    """The example's command: as its main block does, but on a cluster of its own."""
    import ray
    from ray.train.examples.tf import tensorflow_mnist_example

    # Each worker of the example asks for a whole processor.
    ray.init(address="local", num_cpus=max(CORES, settings["workers"]))
    tensorflow_mnist_example.train_func = lambda config: peer_worker({**config, **settings})
    tensorflow_mnist_example.train_tensorflow_mnist(
        num_workers=settings["workers"],
        epochs=settings["epochs"],
        storage_path=os.path.dirname(settings["history"]),
    )


def peer_worker(config: dict[str, Any]) -> None:
    """What each worker of the example does: its `train_func`, on our data and model, timed."""
    from ray.train.examples.tf import tensorflow_mnist_example as published

    keras = published.tf.keras
    train = training_rows(config["limit"])
    rows = []
    is_first = json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0

    class Timed(published.ReportCheckpointCallback):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self._began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds = time.perf_counter() - self._began
            images = config["steps_per_epoch"] * config["batch_size"] * config["workers"]
            rows.append([seconds, images / seconds, logs["accuracy"]])
            super().on_epoch_end(epoch, logs)

    class FirstStep(Timed):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if batch == 0 and is_first:
                Path(config["first_step"]).write_text(str(time.time()))

    def build_lenet5():
        layers = lenet5(keras.layers, classes=10)
        # The example's loss expects logits.
        layers[-1].activation = keras.activations.linear
        image = [keras.Input(shape=(28, 28)), keras.layers.Reshape((28, 28, 1))]
        return keras.Sequential([*image, *layers])

    keras.datasets.mnist.load_data = lambda: ((train.images[..., 0], train.labels), None)
    published.FileLock = contextlib.nullcontext  # guards the download, which is not made
    published.ReportCheckpointCallback = FirstStep if "first_step" in config else Timed
    if not config["own_model"]:
        published.build_cnn_model = build_lenet5
    published.train_func(config)
    if is_first:
        with open(config["history"], "w", newline="") as stream:
            csv.writer(stream).writerows([["seconds", "images_per_second", "accuracy"], *rows])


def measure(workers: int, size: Size, pairs: int, own_model: bool) -> dict[str, Any]:
    """Both comparisons, as the document that is kept."""
    peer_packages(PEERS)
    batches = {ONE_WORKER: BATCH, EXAMPLE: BATCH * workers}

    def pair(against: str, number: int) -> dict[str, Measured]:
        batch = batches[against]
        ours = lenet(workers, CORES / workers, batch, size)
        if against == ONE_WORKER:
            return {"ours": ours, "theirs": lenet(1, CORES, batch, size)}
        return {"ours": ours, "theirs": example(workers, batch, size, own_model)}

    rows = []
    for against, batch in batches.items():
        name = name_of(workers, size, pairs, against)
        found = kept_rounds(name, pairs, functools.partial(pair, against))
        values = [(one["ours"], one["theirs"]) for one in found]
        sides = zip(*values, strict=True)
        accuracy = [statistics.median(one["accuracy"] for one in side) for side in sides]
        rows += [
            {
                "against": against,
                "batch": batch,
                "quantity": quantity,
                **compared([(a[quantity], b[quantity]) for a, b in values]),
                "accuracy": accuracy,
            }
            for quantity in UNITS
        ]
    (tf_keras,) = re.findall(r"^tf-keras==([\w.]+)", PEERS.read_text(), re.MULTILINE)
    about = circumstances("tensorflow", "keras", "ray")
    about["versions"]["tf-keras"] = tf_keras
    return {
        **about,
        "workers": workers,
        "epochs": size.epochs,
        "limit": size.limit,
        "example_model": "its own" if own_model else "lenet5",
        "rows": rows,
    }


def name_of(workers: int, size: Size, pairs: int, against: str) -> str:
    peer = "one-worker" if against == ONE_WORKER else "example"
    return f"workers-{workers}-{peer}-{size.epochs}-{size.limit or 'all'}-{pairs}"


def result_of(workers: int) -> Path:
    return RESULTS / ("workers.json" if workers == 2 else f"workers-{workers}.json")


def table(path: Path) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    workers = document["workers"]
    lines = [
        f"| what | global batch | {workers} workers, {CORES / workers:g} core each | against "
        "| its figure | ratio (min–max) | training accuracy, ours and its |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        accuracies = ", ".join(f"{100 * value:.2f} %" for value in row["accuracy"])
        lines.append(
            f"| {UNITS[row['quantity']]} | {row['batch']} | {row['ours']:,.0f} "
            f"| {row['against']} | {row['theirs']:,.0f} "
            f"| {ratio(row)} "
            f"| {accuracies} |"
        )
    epochs, pairs = document["epochs"], len(document["rows"][0]["pairs"])
    rows = f"the first {document['limit']:,} rows" if document["limit"] else "all training rows"
    model = "with the same LeNet5" if document["example_model"] == "lenet5" else "as it is"
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"Medians of {pairs} pair{'s' if pairs > 1 else ''}, measured in turn; {epochs} epochs of "
        f"{rows}, rates without the first; Ray's example trains {model} and, unlike our command, "
        f"neither validates nor tests; {document['date']}, {document['device']}; {versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where the figures are kept")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of each command, 2 or more")
    parser.add_argument("--limit", type=int, help="train on the first N rows only (smoke runs)")
    parser.add_argument("--own-model", action="store_true", help="leave Ray's example its model")
    parser.add_argument("--peer", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.peer)
        return
    if arguments.epochs < 2 or arguments.pairs < 1:
        parser.error("rates need 2 or more --epochs and 1 or more --pairs")
    out = arguments.out or result_of(arguments.workers)
    if not arguments.table:
        size = Size(arguments.epochs, arguments.limit)
        document = measure(arguments.workers, size, arguments.pairs, arguments.own_model)
        names = [
            name_of(arguments.workers, size, arguments.pairs, against)
            for against in (ONE_WORKER, EXAMPLE)
        ]
        keep(document, out, *names)
    print(table(out))


if __name__ == "__main__":
    main()
