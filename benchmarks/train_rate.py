"""Training rate against Keras' `fit`: same model, data, batch and optimizer, in turn in one run.

    python benchmarks/train_rate.py               # measures, keeps docs/results/train_rate.json
    python benchmarks/train_rate.py --table       # prints the table of the kept figures

The Keras side is what its users write: `compile`, then `fit` on arrays, with TensorFlow's defaults.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from paired import Side, circumstances, paired, ratio

from job.datasets import CATALOGUE, training_splits
from job.download import obtain

RESULT = Path(__file__).parents[1] / "docs" / "results" / "train_rate.json"
# Model, our batch, their batch. The third case is the budget of the quick recipe: it trains
# 8 × 48,000 images in the time in which `fit` at batch 32 trains 210,000, if the ratio is 1.83.
CASES = [
    ("lenet5", 32, 32),
    ("lenet5", 128, 128),
    ("lenet5", 128, 32),
    ("ffnn", 32, 32),
    ("ffnn", 128, 128),
]
IMAGES = {"lenet5": 9_600, "ffnn": 38_400}
PAIRS = 5


def ours(model: str, batch: int) -> None:
    """Our side of a pair, as `lenet train` sets it up."""
    from job.runtime import start_tensorflow

    start_tensorflow()
    from job.config import resolve
    from job.engine import DeviceSplit, Engine
    from job.randomness import batches, example_order

    train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], IMAGES[model])
    config = resolve({"model": model, "batch_size": batch, "recipe": "notebook"})
    rows = batches(example_order(1, 0, len(train)), batch)
    engine, data = Engine(config, total_steps=len(rows)), DeviceSplit.load(train)
    serve(lambda: engine.train_span(data, rows, 0), len(train))


def keras_fit(model: str, batch: int) -> None:
    """The Keras side of a pair."""

    from job.config import resolve
    from job.models import build_model

    train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], IMAGES[model])
    config = resolve({"model": model, "recipe": "notebook"})
    images = train.images.astype("float32") / 255
    net = build_model(model, seed=1)
    net.compile(config.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    serve(lambda: net.fit(images, train.labels, batch_size=batch, verbose=0), len(train))


def serve(work, images: int) -> None:
    for _ in sys.stdin:
        began = time.perf_counter()
        work()
        rate = images / (time.perf_counter() - began)
        print(json.dumps({"images_per_second": rate}), flush=True)


def measure() -> None:
    rows = []
    for model, batch, their_batch in CASES:
        sides = [
            Side([sys.executable, __file__, "--side", side, model, str(size)])
            for side, size in (("ours", batch), ("keras", their_batch))
        ]
        measured = paired(*sides, "images_per_second", PAIRS)
        rows.append({"model": model, "batch": batch, "their_batch": their_batch, **measured})
        print(json.dumps(rows[-1]), file=sys.stderr)
    document = {
        **circumstances("tensorflow", "keras"),
        "rows": rows,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def table() -> str:
    """The kept figures as Markdown."""
    document = json.loads(RESULT.read_text())
    lines = [
        "| model | batch of `fit` | Keras `fit`, images/s | our batch | this project, images/s "
        "| ratio (min–max) |",
        "|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        lines.append(
            f"| {row['model']} | {row['their_batch']} | {row['theirs']:,.0f} "
            f"| {row['batch']} | {row['ours']:,.0f} "
            f"| {ratio(row)} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"Medians of {PAIRS} pairs, measured in turn; {document['date']}, {document['device']}; "
        f"{versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, model, batch = arguments.side
        {"ours": ours, "keras": keras_fit}[side](model, int(batch))
        return
    if not arguments.table:
        measure()
    print(table())


if __name__ == "__main__":
    main()
