"""What each choice of the engine brings: the engine against itself without it, in turn.

    python -m benchmarks.speed.ablation               # measures, keeps docs/results/ablation.json
    python -m benchmarks.speed.ablation --table       # prints the table of the kept figures

Every side trains the same rows with `Engine.train_span`, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import Side, circumstances, compared, in_turn, keep, kept_rounds, ratio
from job.data.catalogue import CATALOGUE
from job.data.sources import obtain
from job.data.splits import training_splits

RESULT = Path(__file__).parents[2] / "docs" / "results" / "ablation.json"
CASES = [("lenet5", 32), ("lenet5", 128), ("ffnn", 32), ("ffnn", 128)]
IMAGES = {"lenet5": 1_920, "ffnn": 7_680}
ROUNDS = 5
AS_IT_IS = "as it is"
OTHERS = {
    "a call from Python for each step": "steps",
    "threads that share each operation, no lanes": "threads",
    "Keras' own updates of variables": "updates",
    "Keras' own layers": "layers",
    "TensorFlow's kernels instead of oneDNN's": "kernels",
    "forward and backward pass compiled by XLA": "xla",
}


def side(model: str, batch: int, without: str) -> None:
    """Trains an epoch for each line from stdin."""
    if without == "kernels":
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    import keras
    import tensorflow as tf

    from job.config.resolve import resolve
    from job.engine import engine as module
    from job.engine.randomness import batches, example_order

    if without == "threads":
        tf.config.threading.set_intra_op_parallelism_threads(len(os.sched_getaffinity(0)))
    if without == "layers":
        module.form_of = lambda config: lambda layer: layer
    if without == "updates":
        kinds = {"sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}
        module.build_optimizer = lambda config, rate: kinds[config.optimizer](rate)
    rows, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], IMAGES[model])
    config = resolve(
        {"model": model, "batch_size": batch, "recipe": "notebook", "xla": without == "xla"}
    )
    steps = batches(example_order(1, 0, len(rows)), batch)
    engine = module.Engine(
        config,
        total_steps=len(steps),
        parts=1 if without == "threads" else None,
    )
    data = module.DeviceSplit.load(rows)

    def whole() -> None:
        engine.train_span(data, steps, 0)

    def one_by_one() -> None:
        for number in range(len(steps)):
            engine.train_span(data, steps[number : number + 1], number)

    serve(one_by_one if without == "steps" else whole, len(rows))


def serve(epoch: Callable[[], None], count: int) -> None:
    for _ in sys.stdin:
        began = time.perf_counter()
        epoch()
        figures = {"per_second": count / (time.perf_counter() - began)}
        print(json.dumps(figures), flush=True)


def case(model: str, batch: int, rounds: int) -> dict[str, Any]:
    """All sides in turn."""
    names = {AS_IT_IS: "nothing", **OTHERS}
    found = in_turn(
        {
            name: Side([sys.executable, "-m", __spec__.name, "--side", model, str(batch), without])
            for name, without in names.items()
        },
        rounds,
    )
    rows = [
        {
            **{"model": model, "batch": batch, "without": other},
            **compared([(one[AS_IT_IS]["per_second"], one[other]["per_second"]) for one in found]),
        }
        for other in OTHERS
    ]
    return {"rows": rows}


def measure(rounds: int) -> dict[str, Any]:
    """The document that is kept. An interrupted measurement goes on with the next case."""
    found = kept_rounds(
        f"ablation-{rounds}", len(CASES), lambda number: case(*CASES[number], rounds)
    )
    rows = [row for one in found for row in one["rows"]]
    return {**circumstances("tensorflow", "keras"), "rows": rows}


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    found = {(row["without"], row["model"], row["batch"]): row for row in document["rows"]}
    cases = list(dict.fromkeys((row["model"], row["batch"]) for row in document["rows"]))
    lines = [
        "| instead of ours |" + "".join(f" {model}, batch {batch} |" for model, batch in cases),
        "|---" * (len(cases) + 1) + "|",
        f"| {AS_IT_IS}, images/s |"
        + "".join(f" {found[next(iter(OTHERS)), *one]['ours']:,.0f} |" for one in cases),
    ]
    for other in OTHERS:
        lines.append(f"| {other} |" + "".join(f" {ratio(found[other, *c])} |" for c in cases))
    versions = ", ".join(f"{k} {v}" for k, v in document["versions"].items())
    note = (
        f"How many times as fast the engine is as it is; medians of "
        f"{len(document['rows'][0]['pairs'])} rounds in turn (min–max); {document['date']}, "
        f"{document['device']}; {versions}."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        model, batch, without = arguments.side
        side(model, int(batch), without)
        return
    if not arguments.table:
        document = measure(arguments.rounds)
        keep(document, arguments.out, f"ablation-{arguments.rounds}")
    print(table(arguments.out))


if __name__ == "__main__":
    main()
