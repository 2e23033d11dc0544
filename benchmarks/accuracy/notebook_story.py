"""The notebook's two wrong numbers, made again on purpose: a failing FFNN and a leaked validation.

    python -m benchmarks.accuracy.notebook_story  # what is missing; about 12 minutes
    python -m benchmarks.accuracy.notebook_story raw-keras2-seed1 …  # only these
    python -m benchmarks.accuracy.notebook_story --table ffnn  # prints a table of the kept figures

Each run is kept in docs/results/notebook_story.json as soon as it has finished. The right runs are
those of `studies.py run notebook`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import studies
from benchmarks.kit.paired import circumstances
from job.data.catalogue import CATALOGUE
from job.data.files import Split
from job.data.sources import obtain
from job.data.splits import test_split, training_splits

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "results" / "notebook_story.json"
# What the notebook itself printed, typed off; the file says from where.
PUBLISHED = ROOT / "docs" / "results" / "notebook_published.json"
SCRATCH = ROOT / "build" / "notebook_story"
SEEDS = (1, 2, 3)
EPSILON = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One way of training the FFNN.

    Attributes:
        inputs: What the model sees, for the table.
        divisor: What pixels of 0 … 255 are divided by.
        keras2: Compute loss and steps as Keras 2 did, else as Keras 3 does.
        epochs: For how long.
    """

    inputs: str
    divisor: float
    keras2: bool
    epochs: int


CASES = {
    "raw-keras2": Case(inputs="0 … 255", divisor=1, keras2=True, epochs=10),
    "raw-keras3": Case(inputs="0 … 255", divisor=1, keras2=False, epochs=5),
    "once-keras2": Case(inputs="0 … 1", divisor=255, keras2=True, epochs=5),
    "twice-keras2": Case(inputs="0 … 1/255", divisor=255**2, keras2=True, epochs=5),
}
# LeNet5 on all 60,000 rows; then, going on from its weights, on the first 48,000 with the rest as
# "validation", as the notebook's cell does.
ALL_ROWS = {
    "recipe": "quick-1",
    "epochs": 8,
    "batch_size": 256,
    "learning_rate": 0.2,
    "weight_decay": 0.0,
}
AGAIN = {"recipe": "notebook", "epochs": 3}


def clipped_cross_entropy(targets, probabilities):
    """Cross-entropy (batch,) of one-hot targets as Keras 2 with TensorFlow 1 computed it.

    Probabilities are clipped to [1e-7, 1 - 1e-7], so that no loss is above -ln(1e-7) = 16.1; and
    what is clipped has a gradient of zero. (keras 2.2.4, `categorical_crossentropy` in
    keras/backend/tensorflow_backend.py. Keras 3 does the same with a softmax whose logits it does
    not know; where it knows them, as for a `Dense` layer with a softmax, it computes with those.)
    """
    from keras import ops

    normed = probabilities / ops.sum(probabilities, axis=-1, keepdims=True)
    return -ops.sum(targets * ops.log(ops.clip(normed, EPSILON, 1 - EPSILON)), axis=-1)


def splits() -> tuple[Split, Split, Split]:
    contents = obtain("mnist")
    dataset = CATALOGUE["mnist"]
    return *training_splits(contents, dataset), test_split(contents, dataset)


def fit(case: Case, seed: int) -> dict[str, Any]:
    """Trains the FFNN with Keras' own `fit`, as the notebook does, and keeps the best weights."""
    import keras
    import numpy as np

    from job.models import build_model

    def prepared(split: Split):
        pixels = split.images.astype("float32") / np.float32(case.divisor)
        return pixels, keras.utils.to_categorical(split.labels, 10)

    def clipped_rows(examples) -> float:
        """The share of examples that have no say: the gradient of their loss is zero."""
        images, targets = examples
        chosen = (model.predict(images, batch_size=1000, verbose=0) * targets).sum(axis=1)
        return float(((chosen < EPSILON) | (chosen > 1 - EPSILON)).mean())

    train, validation, test = map(prepared, splits())
    model = build_model("ffnn", seed=seed)
    model.compile(
        # Keras 2 added its 1e-7 to the root of the mean square, Keras 3 adds it below the root.
        keras.optimizers.RMSprop(epsilon=1e-14 if case.keras2 else 1e-7),
        clipped_cross_entropy if case.keras2 else "categorical_crossentropy",
        metrics=["accuracy"],
        # An epoch in one call, without XLA: the fastest way of `fit` on a processor.
        steps_per_execution=375,
        jit_compile=False,
    )
    before = model.evaluate(*test, batch_size=1000, verbose=0)
    silent_before = clipped_rows(validation)
    best = keras.callbacks.EarlyStopping(patience=case.epochs, restore_best_weights=True)
    trained = model.fit(
        *train,
        batch_size=128,
        epochs=case.epochs,
        validation_data=validation,
        callbacks=[best],
        verbose=0,
    )
    after = model.evaluate(*test, batch_size=1000, verbose=0)
    predicted = model.predict(test[0], batch_size=1000, verbose=0).argmax(axis=1)
    return {
        "history": rounded(trained.history),
        "before": dict(zip(("loss", "accuracy"), before, strict=True)),
        "test": dict(zip(("loss", "accuracy"), after, strict=True)),
        "clipped_before": silent_before,
        "clipped": clipped_rows(validation),
        "never_predicted": [digit for digit in range(10) if digit not in predicted],
    }


def all_rows(seed: int) -> dict[str, Any]:
    """Trains LeNet5 on all rows that are not the test set, and keeps the weights for `again`."""
    import numpy as np
    import safetensors.numpy

    train, validation, test = splits()
    everything = Split(*(np.concatenate(parts) for parts in zip(train, validation, strict=True)))
    engine, history = trained(ALL_ROWS, everything, validation, seed)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(engine.weights(), SCRATCH / f"seed{seed}.safetensors")
    return {"history": history, "test": tested(engine, test)}


def again(seed: int) -> dict[str, Any]:
    """Goes on from the weights of `all_rows` and believes to validate."""
    import safetensors.numpy

    train, validation, test = splits()
    weights = safetensors.numpy.load_file(SCRATCH / f"seed{seed}.safetensors")
    engine, history = trained(AGAIN, train, validation, seed, weights)
    return {"history": history, "test": tested(engine, test)}


def trained(
    settings: dict[str, Any], train: Split, validation: Split, seed: int, weights=None
) -> tuple[Any, dict[str, list[float]]]:
    """LeNet5 after some epochs, and its history."""
    from job.config.resolve import resolve
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    config = resolve({"model": "lenet5", "label_smoothing": 0.0, "seed": seed, **settings})
    steps = -(-len(train) // config.batch_size)
    engine = Engine(config, total_steps=steps * config.epochs)
    if weights is not None:
        engine.restore(weights, engine.optimizer_arrays())
    data, held_out = DeviceSplit.load(train), DeviceSplit.load(validation)
    history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
    for epoch in range(config.epochs):
        rows = batches(example_order(seed, epoch, len(train)), config.batch_size)
        metrics = engine.train_span(data, rows, epoch * steps)
        figures = (
            metrics.loss_sum.sum() / len(train),
            metrics.correct.sum() / len(train),
            *engine.evaluate(held_out),
        )
        for values, value in zip(history.values(), figures, strict=True):
            values.append(float(value))
    return engine, rounded(history)


def tested(engine: Any, test: Split) -> dict[str, float]:
    from job.engine.scoring import score

    scores = score(engine.model, test)
    return {"loss": scores.loss, "accuracy": scores.accuracy}


def rounded(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 6) for value in values] for name, values in history.items()}


RUNS = {
    **{f"{name}-seed{seed}": (fit, case, seed) for name, case in CASES.items() for seed in SEEDS},
    **{
        f"{name}-seed{seed}": (work, seed)
        for seed in SEEDS
        for name, work in (("all-rows", all_rows), ("again", again))
    },
}


def train(names: Sequence[str]) -> None:
    """Makes the runs that are not kept yet."""
    from job.engine.runtime import start_tensorflow

    start_tensorflow()
    for name in names:
        document = kept() if RESULT.exists() else {"runs": {}}
        if name not in document["runs"]:
            work, *arguments = RUNS[name]
            document["runs"][name] = work(*arguments)
            document = {**circumstances("tensorflow", "keras"), "runs": document["runs"]}
            RESULT.write_text(json.dumps(document, indent=1) + "\n")
            print(name, document["runs"][name]["test"], flush=True)


def kept() -> dict[str, Any]:
    return json.loads(RESULT.read_text())


def published() -> dict[str, Any]:
    return json.loads(PUBLISHED.read_text())


def group(name: str) -> list[dict[str, Any]]:
    """The kept runs of a case, one for each seed."""
    runs = kept()["runs"]
    return [runs[f"{name}-seed{seed}"] for seed in SEEDS]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def percent(values: Sequence[float], form: str = ".2f") -> str:
    return f"{spread([100 * value for value in values], form)} %"


def last(runs: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [run["history"][name][-1] for run in runs]


def conditions() -> str:
    document = kept()
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"{document['date']}, {document['device']}; {versions}."


def ffnn_table() -> str:
    """The FFNN's cases beside the notebook and the right run."""
    lines = [
        "| pixels | as in Keras | epochs | validation loss | validation accuracy "
        "| test accuracy | rows without a say | digits never answered |",
        "|---|---|---|---|---|---|---|---|",
    ]
    theirs = published()["ffnn"]
    lines.append(
        f"| *the notebook* | | 10 | {theirs['val_loss'][-1]:.2f} "
        f"| {theirs['val_accuracy'][-1]:.2%} | **{theirs['test_accuracy']:.2%}** | | |"
    )
    for name, case in CASES.items():
        runs = group(name)
        silent = percent([run["clipped"] for run in runs], ".0f") if case.keras2 else ""
        never = [len(run["never_predicted"]) for run in runs]
        shown = f"{min(never)} to {max(never)}" if min(never) < max(never) else f"{never[0]}"
        lines.append(
            f"| {case.inputs} | {2 if case.keras2 else 3} | {case.epochs} "
            f"| {spread(last(runs, 'val_loss'))} | {percent(last(runs, 'val_accuracy'))} "
            f"| **{percent([run['test']['accuracy'] for run in runs])}** | {silent} | {shown} |"
        )
    right = [run for run in studies.document("notebook")["runs"] if run["setting"] == "ffnn"]
    curves = studies.histories("notebook", "ffnn").values()
    lines.append(
        f"| 0 … 1 | 3 (`--recipe notebook`) | 10 "
        f"| {spread([curve['val_loss'][-1] for curve in curves])} "
        f"| {percent([curve['val_accuracy'][-1] for curve in curves])} "
        f"| **{percent([run['test_accuracy'] for run in right])}** | | 0 |"
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Mean ± standard deviation, {len(SEEDS)} seeds each; validation after the last epoch, "
            "test with the weights of the best validation loss. Rows without a say: validation "
            "rows whose loss is clipped, with the same weights. "
            f"{conditions()}",
        ]
    )


def leak_table() -> str:
    """LeNet5's validation accuracy where the model has seen the rows, and where it has not."""
    lines = [
        "| LeNet5 | validation, epoch 1 | validation, last epoch | test | validation − test |",
        "|---|---|---|---|---|",
    ]
    theirs = published()["lenet5"]
    curve = theirs["val_accuracy"]
    lines.append(
        f"| *the notebook*, {len(curve)} epochs | {curve[0]:.2%} | {curve[-1]:.2%} "
        f"| {theirs['test_accuracy']:.2%} | {100 * (curve[-1] - theirs['test_accuracy']):+.2f} |"
    )
    runs = group("again")
    right = [run for run in studies.document("notebook")["runs"] if run["setting"] == "lenet5"]
    curves = list(studies.histories("notebook", "lenet5").values())
    for title, accuracies, tests in (
        (
            f"trained on all 60,000 rows, then {AGAIN['epochs']} epochs more on 48,000 of them",
            [run["history"]["val_accuracy"] for run in runs],
            [run["test"]["accuracy"] for run in runs],
        ),
        (
            f"new, {len(curves[0]['accuracy'])} epochs on 48,000 rows (`--recipe notebook`)",
            [curve["val_accuracy"] for curve in curves],
            [run["test_accuracy"] for run in right],
        ),
    ):
        apart = [100 * (a[-1] - test) for a, test in zip(accuracies, tests, strict=True)]
        lines.append(
            f"| {title} | {percent([a[0] for a in accuracies])} "
            f"| {percent([a[-1] for a in accuracies])} | {percent(tests)} "
            f"| {statistics.mean(apart):+.2f} ± {statistics.stdev(apart):.2f} |"
        )
    return "\n".join(
        [*lines, "", f"Mean ± standard deviation, {len(SEEDS)} seeds each. {conditions()}"]
    )


TABLES = {"ffnn": ffnn_table, "leak": leak_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", choices=[*RUNS, []], metavar="RUN")
    parser.add_argument("--table", choices=TABLES)
    arguments = parser.parse_args()
    if arguments.table:
        print(TABLES[arguments.table]())
    else:
        train(arguments.runs or list(RUNS))


if __name__ == "__main__":
    main()
