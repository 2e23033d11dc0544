"""Training rate and memory against Keras' `fit`, tf_keras and PyTorch.

Same model, data, batch and optimizer, in turn.

    python -m benchmarks.speed.train_rate  # measures, keeps docs/results/train_rate.json
    python -m benchmarks.speed.train_rate --table  # prints the table of the kept figures

The others are what their users write, with their frameworks' defaults: `compile`, then `fit` on
arrays; and a loop over `randperm(n).split(batch)` with all data in memory. Each side also counts
its correct predictions while it trains, which the table shows, so nobody wins by training less.
Keras is there once more as someone tunes it who knows it: 32 steps in a call, and oneDNN's kernels
instead of XLA's. tf_keras is Keras 2, with its defaults; it is pinned in peers.txt.

PyTorch is taken from torch.txt, into a folder of its own beside the data. Its build for CPUs has
to be where pip looks: PyPI has only the one for CUDA. Without it that column stays empty.

The memory of a side is the most that its process had resident: the framework, the data and the
training, as someone sees it who starts a program for it.

The share of the peak: the multiplications and additions of the model's layers, forward and
backward, per second, against those of NumPy's product of two 2,048² float32 matrices on all
processors, measured in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import (
    Side,
    circumstances,
    compared,
    in_turn,
    keep,
    kept_rounds,
    peak_mb,
    ratio,
)
from benchmarks.kit.peers import peer_packages
from job.data.catalogue import CATALOGUE
from job.data.files import Split
from job.data.sources import obtain
from job.data.splits import training_splits

RESULT = Path(__file__).parents[2] / "docs" / "results" / "train_rate.json"
TORCH = Path(__file__).parents[1] / "kit" / "torch.txt"
PEERS = Path(__file__).parents[1] / "kit" / "peers.txt"
STEPS_IN_A_CALL = 32
# Model, our batch, their batch. The third case is the budget of the quick recipe: it trains
# 8 × 48,000 images in the time in which `fit` at batch 32 trains 210,000, if the ratio is 1.83.
CASES = [
    ("lenet5", 32, 32),
    ("lenet5", 128, 128),
    ("lenet5", 128, 32),
    ("lenet5", 512, 512),
    ("ffnn", 32, 32),
    ("ffnn", 128, 128),
    ("ffnn", 512, 512),
]
IMAGES = {"lenet5": 5_120, "ffnn": 20_480}
ROUNDS = 5


def ours(model: str, batch: int) -> None:
    """Our side, as `lenet train` sets it up."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    from job.config.resolve import resolve
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    train = training_rows(model)
    config = resolve({"model": model, "batch_size": batch, "recipe": "notebook"})
    rows = batches(example_order(1, 0, len(train)), batch)
    engine, data = Engine(config, total_steps=len(rows)), DeviceSplit.load(train)
    serve(lambda: engine.train_span(data, rows, 0).correct.sum() / len(train), len(train))


def keras_fit(model: str, batch: int, **tuning: Any) -> None:
    from job.models import build_model

    fitted(build_model(model, seed=1), model, batch, **tuning)


def keras_tuned(model: str, batch: int) -> None:
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    keras_fit(model, batch, steps_per_execution=STEPS_IN_A_CALL, jit_compile=False)


def tf_keras(model: str, batch: int) -> None:
    sys.path.append(str(peer_packages(PEERS)))
    import tf_keras as keras

    from job.models import IMAGE_SHAPE, MODELS

    keras.utils.set_random_seed(1)
    layers = MODELS[model](keras.layers, 10)
    fitted(keras.Sequential([keras.Input(IMAGE_SHAPE), *layers]), model, batch)


def fitted(net: Any, model: str, batch: int, **tuning: Any) -> None:
    """Serves epochs of `fit`, of either Keras."""
    from job.config.resolve import resolve

    train = training_rows(model)
    images = train.images.astype("float32") / 255
    optimizer = resolve({"model": model, "recipe": "notebook"}).optimizer
    net.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **tuning)

    def epoch() -> float:
        history = net.fit(images, train.labels, batch_size=batch, verbose=0).history
        return history["accuracy"][-1]

    serve(epoch, len(train))


def pytorch(model: str, batch: int) -> None:
    sys.path.append(str(peer_packages(TORCH)))
    import torch
    from torch import nn

    train = training_rows(model)
    images = torch.from_numpy(train.images).permute(0, 3, 1, 2).contiguous().float() / 255
    labels = torch.from_numpy(train.labels).long()
    net = torch_model(model)
    optimizer = (
        torch.optim.SGD(net.parameters(), lr=0.01)
        if model == "lenet5"
        else torch.optim.RMSprop(net.parameters(), lr=0.001, alpha=0.9, eps=1e-7)
    )
    loss_of = nn.CrossEntropyLoss()

    def epoch() -> float:
        correct = torch.zeros((), dtype=torch.long)
        for chosen in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            logits = net(images[chosen])
            loss = loss_of(logits, labels[chosen])
            loss.backward()
            optimizer.step()
            correct += (logits.argmax(1) == labels[chosen]).sum()
        return correct.item() / len(images)

    serve(epoch, len(images))


def torch_model(model: str) -> Any:
    """The model as a `torch.nn.Module` from images (n, 1, 28, 28) to logits."""
    from torch import nn

    if model == "lenet5":
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2, stride=1)),
            *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten()),
            *(nn.Linear(3000, 84), nn.Tanh(), nn.Linear(84, 10)),
        )
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 10)),
    )


def sgemm(model: str, batch: int) -> None:
    """The machine's peak, as "images" of one floating-point operation."""
    import numpy as np

    size, repetitions = 2048, 10
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)

    def products() -> float:
        for _ in range(repetitions):
            a @ b
        return 1.0

    serve(products, repetitions * 2 * size**3)


PEER_NAMES = {
    "keras": "Keras `fit`",
    "keras_tuned": "Keras, tuned",
    "tf_keras": "tf_keras `fit`",
    "pytorch": "PyTorch",
}
SIDES = {
    "ours": ours,
    "keras": keras_fit,
    "keras_tuned": keras_tuned,
    "tf_keras": tf_keras,
    "pytorch": pytorch,
    "sgemm": sgemm,
}


def training_rows(model: str) -> Split:
    return training_splits(obtain("mnist"), CATALOGUE["mnist"], IMAGES[model])[0]


def serve(epoch: Callable[[], float], count: int) -> None:
    """Trains an epoch for each line from stdin; `epoch` returns its accuracy."""
    for _ in sys.stdin:
        began = time.perf_counter()
        accuracy = epoch()
        rate = count / (time.perf_counter() - began)
        figures = {"per_second": rate, "accuracy": float(accuracy), "peak_mb": peak_mb()}
        print(json.dumps(figures), flush=True)


def flops(name: str) -> int:
    """Multiplications and additions of one image's training step, by the layers with a kernel.

    Forward, the kernel's gradient and, but for the first of them, the input's.
    """
    from job.models import build_model

    layers = [layer for layer in build_model(name).layers if layer.weights]
    forward = [
        2 * layer.kernel.shape.num_elements() * places(tuple(layer.output.shape[1:-1]))
        for layer in layers
    ]
    return 3 * sum(forward) - forward[0]


def places(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def measure(cases: list[tuple[str, int, int]], rounds: int) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next case."""
    torch_version = torch_at_hand()
    sides = [side for side in SIDES if torch_version or side != "pytorch"]
    rows = kept_rounds(
        f"train_rate-{rounds}", len(cases), lambda number: case(*cases[number], sides, rounds)
    )
    about = circumstances("tensorflow", "keras", "numpy")
    (about["versions"]["tf_keras"],) = re.findall(
        r"^tf-keras==([\w.]+)", PEERS.read_text(), re.MULTILINE
    )
    if torch_version:
        about["versions"]["torch"] = torch_version
    return {**about, "rows": rows}


def case(model: str, batch: int, their_batch: int, sides: list[str], rounds: int) -> dict[str, Any]:
    """All sides in turn, as a row of the document."""
    found = in_turn(
        {
            side: Side(
                [
                    *(sys.executable, "-m", __spec__.name, "--side", side, model),
                    str(batch if side == "ours" else their_batch),
                ]
            )
            for side in sides
        },
        rounds,
    )

    def against(side: str) -> dict[str, Any]:
        return compared([(one["ours"]["per_second"], one[side]["per_second"]) for one in found])

    trainers = [side for side in sides if side != "sgemm"]
    work = flops(model) / 1e9
    gflops = [(work * one["ours"]["per_second"], one["sgemm"]["per_second"] / 1e9) for one in found]
    return {
        "model": model,
        "batch": batch,
        "their_batch": their_batch,
        "sgemm": compared(gflops),
        "accuracy": {side: found[-1][side]["accuracy"] for side in trainers},
        "peak_mb": {side: found[-1][side]["peak_mb"] for side in trainers},
        **{side: against(side) for side in trainers if side != "ours"},
    }


def torch_at_hand() -> str | None:
    """The version of PyTorch in the peers' folder; none where pip has no build for CPUs."""
    try:
        folder = peer_packages(TORCH)
    except subprocess.CalledProcessError:
        print("no PyTorch for CPUs where pip looks: its columns stay empty", file=sys.stderr)
        return None
    return next(folder.glob("torch-*.dist-info")).name.split("-")[1].removesuffix(".dist")


def table(path: Path) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    peers = [side for side in PEER_NAMES if side in document["rows"][0]]
    names = "".join(f" {PEER_NAMES[side]} |" for side in peers)
    lines = [
        f"| model | our batch, theirs | this project, images/s |{names} share of sgemm peak "
        "| training accuracy | memory, MB |",
        "|---" * (len(peers) + 6) + "|",
    ]
    for row in document["rows"]:
        cells = "".join(f" {row[side]['theirs']:,.0f}: {ratio(row[side])} |" for side in peers)
        accuracies = ", ".join(f"{100 * row['accuracy'][s]:.1f} %" for s in ("ours", *peers))
        memory = ", ".join(f"{row['peak_mb'][side]:,.0f}" for side in ("ours", *peers))
        sgemm = row["sgemm"]
        lines.append(
            f"| {row['model']} | {row['batch']}, {row['their_batch']} "
            f"| {row['keras']['ours']:,.0f} |{cells} "
            f"{100 * sgemm['ratio']:.0f} % of {sgemm['theirs']:.0f} GFLOP/s "
            f"| {accuracies} | {memory} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    rounds = len(document["rows"][0]["keras"]["pairs"])
    note = (
        f"Medians of {rounds} rounds, measured in turn, with the ratio of ours to theirs and its "
        f"minimum and maximum; accuracy and memory of the last, in the order of the columns; "
        f"{document['date']}, {document['device']}; {versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, model, batch = arguments.side
        SIDES[side](model, int(batch))
        return
    if not arguments.table:
        document = measure(CASES, arguments.rounds)
        keep(document, RESULT, f"train_rate-{arguments.rounds}")
    print(table(RESULT))


if __name__ == "__main__":
    main()
