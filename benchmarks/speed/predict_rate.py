"""Rates of evaluating and predicting, against Keras and PyTorch: the same weights, all test images.

    python -m benchmarks.speed.predict_rate  # measures, keeps docs/results/predict_rate.json
    python -m benchmarks.speed.predict_rate --table  # prints the table of the kept figures

Ours are `Engine.evaluate`, which validates while a run trains, and `Scorer`, which `lenet evaluate`
and the end of a run use: it gives loss, accuracy and every probability at once. The others are what
their users write: `evaluate` and `predict` at Keras' default batch of 32 and at 1,000, which is
ours; and PyTorch without gradients at 1,000. An engine trains one epoch first, and all sides get
its weights; the accuracy of each is in the table, so nobody wins by computing less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kit.paired import Side, circumstances, compared, in_turn, keep, kept_rounds, ratio
from benchmarks.kit.peers import peer_packages
from benchmarks.speed.train_rate import TORCH, torch_at_hand, torch_model, training_rows
from job.data.catalogue import CATALOGUE
from job.data.files import Split
from job.data.sources import obtain
from job.data.splits import test_split

RESULT = Path(__file__).parents[2] / "docs" / "results" / "predict_rate.json"
MODELS = ("lenet5", "ffnn")
# How often a measurement goes through the test set: for about a second.
PASSES = {"lenet5": 1, "ffnn": 5}
BATCHES = (32, 1000)
ROUNDS = 5
# Our two, and what a user would call instead of each.
OURS = {
    "evaluate": ("keras evaluate 32", "keras evaluate 1000", "pytorch 1000"),
    "score": (
        *("keras evaluate 32", "keras evaluate 1000"),
        *("keras predict 32", "keras predict 1000", "pytorch 1000"),
    ),
}
NAMES = {"evaluate": "validation in a run", "score": "evaluation with all probabilities"}

Weights = list[np.ndarray]
# What it does with the test set, returning its accuracy.
Works = dict[str, Callable[[], float]]


def ours(model: str, weights: Weights, test: Split) -> Works:
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    from job.config.resolve import resolve
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.scoring import Scorer

    engine = Engine(resolve({"model": model}), total_steps=1)
    engine.model.set_weights(weights)
    scorer, data = Scorer(engine.model), DeviceSplit.load(test)
    return {"evaluate": lambda: engine.evaluate(data)[1], "score": lambda: scorer(test).accuracy}


def keras(model: str, weights: Weights, test: Split) -> Works:
    from job.models import build_model

    net = build_model(model)
    net.set_weights(weights)
    net.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    images = test.images.astype("float32") / 255

    def evaluate(batch: int) -> float:
        return net.evaluate(images, test.labels, batch_size=batch, verbose=0)[1]

    def predict(batch: int) -> float:
        probabilities = net.predict(images, batch_size=batch, verbose=0)
        return float((probabilities.argmax(axis=1) == test.labels).mean())

    return {
        f"keras {what.__name__} {batch}": lambda what=what, batch=batch: what(batch)
        for what in (evaluate, predict)
        for batch in BATCHES
    }


def pytorch(model: str, weights: Weights, test: Split) -> Works:
    sys.path.append(str(peer_packages(TORCH)))
    import torch

    net = torch_model(model).eval()
    arrays = in_torchs_layout(weights)
    net.load_state_dict(
        {name: torch.tensor(a) for name, a in zip(net.state_dict(), arrays, strict=True)}
    )
    images = torch.from_numpy(test.images).permute(0, 3, 1, 2).contiguous().float() / 255
    labels = torch.from_numpy(test.labels).long()

    def answers() -> float:
        with torch.no_grad():
            logits = torch.cat([net(part) for part in images.split(1000)])
        return float((logits.argmax(1) == labels).double().mean())

    return {"pytorch 1000": answers}


def in_torchs_layout(weights: Weights) -> Weights:
    """Keras' arrays as PyTorch has them.

    Kernels have their outputs first, and the rows of the dense layer behind the convolutions are by
    channel instead of by place.
    """
    arrays, channels = [], 0
    for array in weights:
        if array.ndim == 4:
            channels = array.shape[-1]
            arrays.append(array.transpose(3, 2, 0, 1))
        elif array.ndim == 2 and channels:
            places = array.reshape(-1, channels, array.shape[-1])
            arrays.append(places.transpose(2, 1, 0).reshape(array.shape[-1], -1))
            channels = 0
        else:
            arrays.append(array.T)
    return arrays


SIDES = {"ours": ours, "keras": keras, "pytorch": pytorch}


def serve(works: Works, passes: int, count: int) -> None:
    """Does each of the works for each line from stdin."""
    for _ in sys.stdin:
        figures = {}
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(passes):
                accuracy = work()
            rate = passes * count / (time.perf_counter() - began)
            figures[name] = {"per_second": rate, "accuracy": accuracy}
        print(json.dumps(figures), flush=True)


def train(model: str, path: str) -> None:
    """Writes the weights of an engine after an epoch."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    from job.config.resolve import resolve
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    rows = training_rows(model)
    config = resolve({"model": model, "recipe": "quick"})
    steps = batches(example_order(1, 0, len(rows)), config.batch_size)
    engine = Engine(config, total_steps=len(steps))
    engine.train_span(DeviceSplit.load(rows), steps, 0)
    np.savez(path, *engine.model.get_weights())


def measure(rounds: int) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next model."""
    torch_version = torch_at_hand()
    sides = [side for side in SIDES if torch_version or side != "pytorch"]
    found = kept_rounds(
        f"predict_rate-{rounds}", len(MODELS), lambda number: of(MODELS[number], sides, rounds)
    )
    about = circumstances("tensorflow", "keras", "numpy")
    if torch_version:
        about["versions"]["torch"] = torch_version
    return {**about, "rows": [row for one in found for row in one["rows"]]}


def of(model: str, sides: list[str], rounds: int) -> dict[str, Any]:
    """The rows of a model."""
    with tempfile.TemporaryDirectory() as folder:
        weights = f"{folder}/weights.npz"
        subprocess.run([sys.executable, "-m", __spec__.name, "--train", model, weights], check=True)
        started = {
            side: Side([sys.executable, "-m", __spec__.name, "--side", side, model, weights])
            for side in sides
        }
        found = [
            {name: figures for side in one.values() for name, figures in side.items()}
            for one in in_turn(started, rounds)
        ]
    rows = [
        {
            **{"model": model, "what": what, "against": other},
            **compared([(one[what]["per_second"], one[other]["per_second"]) for one in found]),
            "accuracy": [found[-1][what]["accuracy"], found[-1][other]["accuracy"]],
        }
        for what, others in OURS.items()
        for other in others
        if other in found[0]
    ]
    return {"rows": rows}


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    lines = [
        "| model | what | ours, images/s | against | its | ratio (min–max) "
        "| accuracy, ours and its |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        accuracies = ", ".join(f"{100 * value:.2f} %" for value in row["accuracy"])
        lines.append(
            f"| {row['model']} | {NAMES[row['what']]} | {row['ours']:,.0f} | {row['against']} "
            f"| {row['theirs']:,.0f} | {ratio(row)} | {accuracies} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"Medians of {len(document['rows'][0]['pairs'])} rounds, measured in turn, on the 10,000 "
        f"test images; the number is the batch; {document['date']}, {document['device']}; "
        f"{versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(*arguments.train)
        return
    if arguments.side:
        side, model, path = arguments.side
        with np.load(path) as arrays:
            weights = list(arrays.values())
        test = test_split(obtain("mnist"), CATALOGUE["mnist"])
        serve(SIDES[side](model, weights, test), PASSES[model], len(test))
        return
    if not arguments.table:
        document = measure(arguments.rounds)
        keep(document, arguments.out, f"predict_rate-{arguments.rounds}")
    print(table(arguments.out))


if __name__ == "__main__":
    main()
