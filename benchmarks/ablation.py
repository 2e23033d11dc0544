"""What each part of the training step brings: the engine against itself without that part, in turn.

python benchmarks/ablation.py             # measures, keeps docs/results/ablation.json
python benchmarks/ablation.py --table     # prints the table of the kept figures
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from paired import Side, circumstances, compared, in_turn, ratio
from train_rate import serve, training_rows

RESULT = Path(__file__).parents[1] / "docs" / "results" / "ablation.json"
WHOLE = "whole"
# What is left out, and what TensorFlow or Keras does instead.
PARTS = {
    "lanes": "all threads share each operation",
    "layers": "Keras' own convolution and pooling",
    "updates": "Keras' own optimizer",
}
CASES = [("lenet5", 32), ("lenet5", 512), ("ffnn", 32), ("ffnn", 512)]
ROUNDS = 5


@contextlib.contextmanager
def without(part: str) -> Iterator[None]:
    """The engine as it is where it lacks a part of `PARTS`; all of it for `WHOLE`."""
    import keras
    import tensorflow as tf

    from job import engine, optimizers

    with contextlib.ExitStack() as stack:
        if part == "lanes":
            tf.config.threading.set_intra_op_parallelism_threads(0)
            stack.enter_context(mock.patch.object(engine, "lanes", lambda: 1))
        elif part == "layers":
            stack.enter_context(mock.patch.object(engine, "fast", lambda layer: layer))
        elif part == "updates":
            for name in ("SGD", "RMSprop"):
                own = getattr(keras.optimizers, name)
                stack.enter_context(mock.patch.object(optimizers, f"Fused{name}", own))
        yield


def side(part: str, model: str, batch: int) -> None:
    from job.runtime import start_tensorflow

    start_tensorflow()
    from job.config import resolve
    from job.engine import DeviceSplit, Engine
    from job.randomness import batches, example_order

    with without(part):
        train = training_rows(model)
        config = resolve({"model": model, "batch_size": batch, "recipe": "notebook"})
        rows = batches(example_order(1, 0, len(train)), batch)
        engine, data = Engine(config, total_steps=len(rows)), DeviceSplit.load(train)
        serve(lambda: engine.train_span(data, rows, 0).correct.sum() / len(train), len(train))


def measure(rounds: int) -> dict[str, Any]:
    rows = []
    for model, batch in CASES:
        sides = {
            name: Side([sys.executable, __file__, "--side", name, model, str(batch)])
            for name in (WHOLE, *PARTS)
        }
        found = in_turn(sides, rounds)
        rates = {name: [one[name]["per_second"] for one in found] for name in sides}
        rows.append(
            {
                "model": model,
                "batch": batch,
                **{
                    name: compared(list(zip(rates[WHOLE], rates[name], strict=True)))
                    for name in PARTS
                },
            }
        )
    return {**circumstances("tensorflow", "keras"), "rows": rows}


def table() -> str:
    """The kept figures as Markdown."""
    document = json.loads(RESULT.read_text())
    lines = [
        f"| model | batch | images/s | {' | '.join(f'against {how}' for how in PARTS.values())} |",
        f"|---|---|---|{'---|' * len(PARTS)}",
    ]
    for row in document["rows"]:
        cells = [ratio(row[name]) for name in PARTS]
        lines.append(
            f"| {row['model']} | {row['batch']} | {row['lanes']['ours']:,.0f} "
            f"| {' | '.join(cells)} |"
        )
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    rounds = len(document["rows"][0]["lanes"]["pairs"])
    note = f"Medians of {rounds} rounds in turn (min–max); {document['date']}, "
    return "\n".join([*lines, "", f"{note}{document['device']}; {versions}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        part, model, batch = arguments.side
        side(part, model, int(batch))
        return
    if not arguments.table:
        RESULT.write_text(json.dumps(measure(arguments.rounds), indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
