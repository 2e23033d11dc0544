"""The rows of the table of all comparisons, and where each finds its figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.speed.train_rate import PEER_NAMES
from benchmarks.summary import Comparison, Find, Found, Goal


def among(key: str | None = None, *, flip: bool = False, **where: Any) -> Find:
    """Finds the row of a document with these values; in it what stands under `key`, if given.

    `flip` where the document has the peer's figure first.
    """

    def find(document: dict[str, Any]) -> Found:
        for row in document["rows"]:
            if all(row.get(name) == value for name, value in where.items()):
                pairs = (row.get(key, {}) if key else row).get("pairs", ())
                ordered = tuple((b, a) if flip else (a, b) for a, b in pairs)
                return Found(ordered, accuracy_of(row, key) if pairs else None)
        return Found()

    return find


def accuracy_of(row: dict[str, Any], key: str | None) -> tuple[float, float] | None:
    """Ours and the peer's: a document has them in this order, or by the sides' names."""
    match row.get("accuracy"):
        case [ours, theirs]:
            return ours, theirs
        case {"ours": ours, **others} if key in others:
            return ours, others[key]
    return None


def peak(side: str, **where: Any) -> Find:
    """Finds the memory of a side of the training rate."""

    def find(document: dict[str, Any]) -> Found:
        for row in document["rows"]:
            if all(row.get(name) == value for name, value in where.items()):
                peaks = row.get("peak_mb", {})
                return Found(((peaks["ours"], peaks[side]),) if side in peaks else ())
        return Found()

    return find


def stalls(document: dict[str, Any]) -> Found:
    shares = document["shares"]
    return Found(tuple(zip(shares["background"], shares["synchronous"], strict=True)))


def to_accuracy(quantity: str, peer: str) -> Find:
    """Finds a time of the whole training, with the mean test accuracies."""

    def find(document: dict[str, Any]) -> Found:
        pairs = among(quantity=quantity, peer=peer)(document).pairs
        if not pairs:
            return Found()
        accuracy = tuple(
            statistics.fmean(seed[side]["test_accuracy"] for seed in document["seeds"])
            for side in ("ours", peer)
        )
        return Found(pairs, accuracy)

    return find


MODELS = {"lenet5": "LeNet5", "ffnn": "FFNN"}
RATE_GOALS = {
    ("lenet5", 32, "keras"): 2.0,
    ("lenet5", 32, "pytorch"): 1.5,
    ("lenet5", 512, "pytorch"): 1.5,
    ("ffnn", 32, "keras"): 2.0,
    ("ffnn", 32, "pytorch"): 1.2,
}
START_GOALS = {"local": Goal(more=3.0), "2 workers": Goal(most=0.75)}
START_PEERS = {"local": "a plain Keras script", "2 workers": "`TensorflowTrainer`"}
JUDGED = {
    "evaluate": ("validation in a run", ("keras evaluate 32", "keras evaluate 1000")),
    "score": ("prediction", ("keras predict 32", "keras predict 1000", "pytorch 1000")),
}
JUDGES = {
    "keras evaluate 32": "Keras `evaluate`, batch 32",
    "keras evaluate 1000": "Keras `evaluate`, batch 1,000",
    "keras predict 32": "Keras `predict`, batch 32",
    "keras predict 1000": "Keras `predict`, batch 1,000",
    "pytorch 1000": "PyTorch, batch 1,000",
}


def comparisons() -> Iterator[Comparison]:
    """All rows, in their order."""
    for model, name in MODELS.items():
        for batch in (32, 128, 512):
            row = {"model": model, "batch": batch, "their_batch": batch}
            for side, peer in PEER_NAMES.items():
                yield Comparison(
                    part="a",
                    what=f"training {name}, batch {batch}, images/s",
                    peer=peer,
                    document="train_rate",
                    find=among(side, **row),
                    goal=Goal(least=RATE_GOALS.get((model, batch, side))),
                )
    yield Comparison(
        part="a",
        what="training LeNet5, batch 512, GFLOP/s",
        peer="the machine's sgemm",
        document="train_rate",
        find=among("sgemm", model="lenet5", batch=512),
        is_rival=False,
        goal=Goal(least=0.5),
    )
    share = "2 workers on 2 cores, LeNet5, batch"
    yield Comparison(
        part="b",
        what=f"{share} 64, images/s",
        peer="1 worker of 2 cores",
        document="workers",
        find=among(against="1 worker, 2 cores", quantity="images_per_second"),
        is_rival=False,
    )
    for quantity, unit, goal in (
        # The bound with AVX-512; with AVX2 only it is 3.
        ("images_per_second", "images/s", Goal(least=1.9)),
        ("wall_seconds", "whole command, s", Goal()),
    ):
        yield Comparison(
            part="b",
            what=f"{share} 128, {unit}",
            peer="Ray's example",
            document="workers",
            find=among(against="Ray's example", quantity=quantity),
            lower=quantity == "wall_seconds",
            goal=goal,
        )
    for case, peer in START_PEERS.items():
        for files in ("warm", "cold"):
            yield Comparison(
                part="c",
                what=f"command to first training step, {case}, files {files}, s",
                peer=peer,
                document="startup",
                find=among(case=case, files=files),
                lower=True,
                goal=START_GOALS[case],
            )
    yield Comparison(
        part="c",
        what="`lenet --help`, s",
        peer="`python -c pass`",
        document="startup",
        find=among(case="help", files="warm"),
        lower=True,
        is_rival=False,
        goal=Goal(ours=0.3),
    )
    for model, name in MODELS.items():
        for what, (doing, peers) in JUDGED.items():
            for peer in peers:
                yield Comparison(
                    part="d",
                    what=f"{doing}, {name}, images/s",
                    peer=JUDGES[peer],
                    document="predict_rate",
                    find=among(model=model, what=what, against=peer),
                )
    yield Comparison(
        part="e",
        what="training stands still for checkpoints in an object store, % of the time",
        peer="synchronous upload",
        document="checkpoint_stall",
        find=stalls,
        lower=True,
    )
    for against, peer in (
        ("keras_tuner", "KerasTuner"),
        ("nested", "a Ray Train run in each trial"),
    ):
        yield Comparison(
            part="f",
            what="a sweep of four trials, whole command, s",
            peer=peer,
            document="sweep-overhead",
            find=among(against=against, flip=True),
            lower=True,
        )
    for quantity, what, goal in (
        ("train_seconds", "quick recipe, training, s", Goal(most=0.5)),
        ("wall_seconds", "quick recipe, whole command, s", Goal()),
        ("wanted_seconds", "quick recipe, command to 99.0 % in validation, s", Goal()),
    ):
        for peer, name in (("keras-best", "its own best"), ("keras", "this recipe")):
            if (peer, quantity) == ("keras", "wanted_seconds"):
                # It never got there.
                continue
            yield Comparison(
                part="g",
                what=what,
                peer=f"Keras `fit`, {name}",
                document="to_accuracy",
                find=to_accuracy(quantity, peer),
                lower=True,
                goal=goal,
            )
    for model, name in MODELS.items():
        for side, peer in PEER_NAMES.items():
            yield Comparison(
                part="h",
                what=f"peak memory, {name}, batch 128, MB",
                peer=peer,
                document="train_rate",
                find=peak(side, model=model, batch=128, their_batch=128),
                lower=True,
            )
