"""The quick recipe's whole training: time and accuracy, against what it was and Keras' `fit`.

    python -m benchmarks.speed.to_accuracy  # measures, keeps docs/results/to_accuracy.json
    python -m benchmarks.speed.to_accuracy --table  # prints the table of the kept figures

Ours is `lenet train --recipe quick --seed N`, as a whole command; beside it the recipe as it was
before, `quick-1`. The others are what someone writes with nothing but Keras: same model, initial
weights, batch, epochs, schedule and label smoothing; it validates after each epoch and keeps the
weights with the best validation loss, of which it reads the test accuracy. One has our recipe, as
far as Keras has it: its Muon gives kernels of convolutions to Adam, its layer moves images by parts
of pixels. The other has the best that was found for it: `quick-1`. All print a line after each
epoch, by which the time is taken at which validation accuracy first reaches 99.0 %.

Training time is that from the first step to the end of the last validation, tracing and compiling
in it: the time in Keras' `fit`; of ours the first epoch's as the run records it, and the time from
the first epoch's line to the last one's, with all checkpoints.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kit.paired import circumstances, compared, keep, kept_rounds, ratio
from job.config.recipes import RECIPES
from job.data.catalogue import CATALOGUE
from job.data.sources import obtain
from job.data.splits import test_split, training_splits
from job.stats import mean_text

RESULT = Path(__file__).parents[2] / "docs" / "results" / "to_accuracy.json"
RECIPE, BEFORE = (RECIPES[name]["lenet5"] for name in ("quick", "quick-1"))
OURS = "ours"
# What ours is held against: its name in the document, and in words.
PEERS = {
    "before": "the recipe before",
    "keras": "Keras `fit`, this recipe",
    "keras-best": "Keras `fit`, its own best",
}
WANTED = 0.99
SEEDS = 5
EPOCH_LINE = re.compile(r"^epoch +\d+/\d+ .*\bval_accuracy +([\d.]+)%")
UNITS = {
    "train_seconds": "training, s",
    "wall_seconds": "whole command, s",
    "wanted_seconds": f"command to {WANTED:.1%} in validation, s",
}

Measured = dict[str, Any]


class Epoch(NamedTuple):
    """A line about an epoch: when it came, in seconds from the command, and what it says."""

    seconds: float
    val_accuracy: float


def ours(recipe: str, seed: int, limit: int | None) -> Measured:
    """`lenet train`, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tuning.cli", "train", "--recipe", recipe, "--json"]
        place = ["--seed", str(seed), "--storage", folder, "--name", "measured"]
        rows = ["--limit-train", str(limit)] if limit else []
        wall, epochs, said = watched([*command, *place, *rows])
        with Path(folder, "measured", "history.csv").open() as stream:
            first = next(csv.DictReader(stream))
    result = json.loads(said)
    in_first = float(first["seconds"]) + float(first["val_seconds"])
    train = in_first + epochs[-1].seconds - epochs[0].seconds
    return figures(wall, epochs, train, result["val_accuracy"], result["test_accuracy"])


def theirs(name: str, seed: int, limit: int | None) -> Measured:
    """The script with Keras, in a process of its own."""
    wall, epochs, said = watched(
        [sys.executable, "-m", __spec__.name, "--peer", name, str(seed), str(limit or 0)]
    )
    result = json.loads(said)
    val_accuracy, test_accuracy = result["val_accuracy"], result["test_accuracy"]
    return figures(wall, epochs, result["train_seconds"], val_accuracy, test_accuracy)


def figures(
    wall: float, epochs: list[Epoch], train: float, val_accuracy: float, test_accuracy: float
) -> Measured:
    reached = [epoch.seconds for epoch in epochs if epoch.val_accuracy >= WANTED]
    return {
        "wall_seconds": wall,
        "train_seconds": train,
        "wanted_seconds": min(reached, default=None),
        "val_accuracy": val_accuracy,
        "test_accuracy": test_accuracy,
    }


def watched(command: list[str]) -> tuple[float, list[Epoch], str]:
    """Runs a command; returns its seconds, its epochs and what it wrote to stdout."""
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.PIPE, text=True) as process,
    ):
        lines, epochs = [], []
        for line in process.stderr:
            lines.append(line)
            if found := EPOCH_LINE.match(line):
                epochs.append(Epoch(time.perf_counter() - began, float(found[1]) / 100))
        code = process.wait()
        wall = time.perf_counter() - began
        if code:
            sys.exit(f"{''.join(lines[-50:])}\n{command} exited {code}")
        said.seek(0)
        return wall, epochs, said.read()


def peer(name: str, seed: int, limit: int | None) -> None:
    """The script: a recipe with nothing but Keras."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    contents, dataset = obtain("mnist"), CATALOGUE["mnist"]
    train, validation = training_splits(contents, dataset, limit)
    test = test_split(contents, dataset)
    x, x_validation, x_test = (
        part.images.astype("float32") / 255 for part in (train, validation, test)
    )
    y, y_validation, y_test = (
        keras.utils.to_categorical(part.labels, 10) for part in (train, validation, test)
    )

    from job.models import build_model

    recipe = RECIPE if name == "keras" else BEFORE
    epochs, batch = recipe["epochs"], recipe["batch_size"]
    steps = -(-len(x) // batch) * epochs
    keras.utils.set_random_seed(seed)
    model = build_model("lenet5", seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - steps // 10,
        warmup_target=recipe["learning_rate"],
        warmup_steps=steps // 10,
    )
    decay = recipe["weight_decay"]
    if recipe["optimizer"] == "muon":
        optimizer = keras.optimizers.Muon(rate, weight_decay=decay, adam_weight_decay=decay)
        moved = recipe["augment_shift"] / 28
        translation = keras.layers.RandomTranslation(moved, moved, fill_mode="constant", seed=seed)
        model = keras.Sequential([keras.Input((28, 28, 1)), translation, model])
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe["label_smoothing"]),
        metrics=["accuracy"],
    )

    class Line(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            said = f"epoch {epoch + 1}/{epochs}  val_accuracy {logs['val_accuracy']:.4%}"
            print(said, file=sys.stderr, flush=True)

    best = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    began = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=batch,
        epochs=epochs,
        validation_data=(x_validation, y_validation),
        callbacks=[Line(), best],
        verbose=0,
    ).history
    seconds = time.perf_counter() - began
    result = {
        "train_seconds": seconds,
        "val_accuracy": history["val_accuracy"][best.best_epoch],
        "test_accuracy": model.evaluate(x_test, y_test, batch_size=1000, verbose=0)[1],
    }
    print(json.dumps(result))


def measure(seeds: int, limit: int | None) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next seed."""
    obtain("mnist")

    def measured(number: int) -> dict[str, Measured]:
        seed = number + 1
        return {
            OURS: ours("quick", seed, limit),
            "before": ours("quick-1", seed, limit),
            "keras": theirs("keras", seed, limit),
            "keras-best": theirs("keras-best", seed, limit),
        }

    found = kept_rounds(name_of(seeds, limit), seeds, measured)
    rows = []
    for peer_name, quantity in itertools.product(PEERS, UNITS):
        values = [(one[OURS][quantity], one[peer_name][quantity]) for one in found]
        # A run that never gets there has no time.
        both = [pair for pair in values if None not in pair]
        rows += [{"peer": peer_name, "quantity": quantity, **compared(both)}] if both else []
    return {**circumstances("tensorflow", "keras"), "limit": limit, "seeds": found, "rows": rows}


def name_of(seeds: int, limit: int | None) -> str:
    return f"to_accuracy-{seeds}-{limit or 'all'}"


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    lines = ["| what | ours | against | | ratio (min–max) | n |", "|---|---|---|---|---|---|"]
    for row in document["rows"]:
        lines.append(
            f"| {UNITS[row['quantity']]} | {row['ours']:.0f} | {PEERS[row['peer']]} "
            f"| {row['theirs']:.0f} | {ratio(row)} | {len(row['pairs'])} |"
        )
    for quantity in ("val_accuracy", "test_accuracy"):
        what = {"val_accuracy": "validation accuracy", "test_accuracy": "test accuracy"}[quantity]
        told = {
            side: mean_text(seed[side][quantity] for seed in document["seeds"])
            for side in (OURS, *PEERS)
        }
        lines += [
            f"| {what} | {told[OURS]} | {PEERS[peer_name]} | {told[peer_name]} | "
            f"| {len(document['seeds'])} |"
            for peer_name in PEERS
        ]
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    rows = f"the first {document['limit']:,} rows" if document["limit"] else "all training rows"
    note = (
        f"LeNet5, {RECIPE['epochs']} epochs of {rows}, {BEFORE['epochs']} of the recipe before and "
        f"of Keras' own best, batch {RECIPE['batch_size']}; medians over seeds, in turn; "
        f"accuracies as mean ± standard deviation; {document['date']}, {document['device']}; "
        f"{versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--limit", type=int, help="train on the first N rows only (smoke runs)")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        name, seed, limit = arguments.peer
        peer(name, int(seed), int(limit) or None)
        return
    if not arguments.table:
        document = measure(arguments.seeds, arguments.limit)
        keep(document, arguments.out, name_of(arguments.seeds, arguments.limit))
    print(table(arguments.out))


if __name__ == "__main__":
    main()
