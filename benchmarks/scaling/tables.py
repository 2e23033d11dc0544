"""The tables of docs/studies/scaling.md, from docs/results/scaling.json."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Rate
from benchmarks.gpu.table import RESULT as GPU_RESULT
from benchmarks.scaling.model import MODELS, disturbed
from benchmarks.scaling.paper import (
    ROWS,
    Machines,
    Prediction,
    end_of_strong_scaling,
    least_share,
    strong,
)

RESULT = Path(__file__).parents[2] / "docs" / "results" / "scaling.json"
GIGABIT = 1e9 / 8

MODEL, MANY, STRONG_BATCHES, EFFICIENCY = "lenet5", (8, 64, 1024), (256, 4096), 0.8
# Estimated, as long as docs/results has no GPU: what it takes to launch the 140 kernels of a step,
# 4 to 5 µs each, and a T4's rate for so small a model.
ESTIMATED = {"images_per_second": 200_000.0, "step": 0.65e-3}
# Assumed, not measured: NCCL's time for a message.
NCCL = {"message": 10e-6, "byte": 0.0, "hop": 1.0, "window": 0.0}


def document() -> dict[str, Any]:
    """What `scaling.py fit` keeps."""
    return json.loads(RESULT.read_text())


MEANINGS = {
    **{f"step {model}": f"`step`, {model}" for model in MODELS},
    **{f"image {model}": f"`image`, {model}" for model in MODELS},
    "hop": "`hop`: latencies for a message, 1 in theory",
    "window": "`window`: a latency passes for every so many bytes of a message",
    "wire": "`wire`: bytes sent for a byte of the model, 1 in theory",
    "message": "`message`: software, for a message",
    "byte": "`byte`: software, for a byte that a worker sends",
    "relayed byte": "the simulation's relay, for a byte (not carried on)",
    "processors": "processors for all workers (not carried on)",
}


def fit_table() -> str:
    """Coefficients and errors as Markdown."""
    found = document()
    lines = ["| what | fitted |", "|---|---|"]
    for name, meaning in MEANINGS.items():
        lines.append(f"| {meaning} | {quantity(name, found['coefficients'][name])} |")
    lines += [
        "",
        "| relative error of a step's time | points | median | worst |",
        "|---|---|---|---|",
    ]
    for name, title in (("fit_errors", "fitted"), ("held_out_errors", "**held out of the fit**")):
        sizes = found[name]
        lines.append(
            f"| {title} | {sizes['points']} "
            f"| {100 * sizes['median']:.1f} % | {100 * sizes['worst']:.1f} % |"
        )
    note = (
        f"{provisional(found)}Steps of {' and '.join(MODELS)} with 1 to 4 workers, one thread "
        f"each, on {found['processors']} threads of a processor; {found['date']}, "
        f"{found['device']}; tensorflow {found['versions']['tensorflow']}."
    )
    return "\n".join([*lines, "", note])


def provisional(found: dict[str, Any]) -> str:
    """What has to be said of figures that are not final; nothing of those that are."""
    points = found["points"]
    missing, loud = found["planned"] - len(points), disturbed(points)
    if not missing and not loud:
        return ""
    return (
        f"**Provisional: {missing} of {found['planned']} points are missing, and beside {loud} "
        "others programs took, or may have taken, processor time from the workers. To be measured "
        "anew.** "
    )


def quantity(name: str, value: float) -> str:
    """A coefficient with its unit."""
    if name in ("hop", "wire", "processors"):
        return f"{value:.2f}"
    if name == "window":
        return f"{1e-3 / value:,.0f} kB" if value else "none"
    if "byte" in name:
        return f"{1e9 * value:.2f} ns"
    return f"{1e6 * value:,.0f} µs"


def gpu(path: Path = GPU_RESULT) -> tuple[dict[str, float], str]:
    """A GPU's step and rate, and where they come from.

    LeNet5's measured rates at the smallest and the largest batch lie on a line, or an estimate.
    Without XLA, as several workers train.
    """
    kept = json.loads(path.read_text()) if path.exists() else {"rows": {}, "batches": []}
    rates = {
        batch: kept["rows"][Rate(MODEL, batch, has_xla=False).key].get("images_per_second")
        for batch in kept["batches"]
    }
    if not rates or None in rates.values():
        return ESTIMATED, "estimated"
    (few, slow), (many, fast) = (pick(rates.items()) for pick in (min, max))
    image = (many / fast - few / slow) / (many - few)
    step = few / slow - few * image
    where = f"as measured on one {kept['rows']['device']['device']}, without XLA"
    return {"images_per_second": 1 / image, "step": step}, where


def scenarios(coefficients: dict[str, float]) -> list[Machines]:
    as_fitted = functools.partial(Machines.as_fitted, coefficients, MODEL)
    one_gpu, _ = gpu()
    return [
        as_fitted(name="a core, gRPC, 10 Gbit/s, 50 µs", latency=50e-6, bandwidth=10 * GIGABIT),
        as_fitted(
            name="a GPU, gRPC, 25 Gbit/s, 30 µs", latency=30e-6, bandwidth=25 * GIGABIT, **one_gpu
        ),
        as_fitted(
            name="a GPU, NCCL, 100 Gbit/s, 20 µs",
            **(one_gpu | NCCL),
            latency=20e-6,
            bandwidth=100 * GIGABIT,
        ),
    ]


def paper_table() -> str:
    """Strong and weak scaling of LeNet5 as Markdown, for each kind of machines."""
    lines = [
        f"| each worker has | workers | speed-up, cost of an epoch at batch {STRONG_BATCHES[0]:,} "
        f"| at batch {STRONG_BATCHES[1]:,} | images a worker for {100 * EFFICIENCY:.0f} % "
        "| as a global batch | steps an epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    ends = []
    for machines in scenarios(document()["coefficients"]):
        for workers in MANY:
            cells = [
                speed(strong(machines, MODEL, workers, batch)) if batch >= workers else "–"
                for batch in STRONG_BATCHES
            ]
            share = least_share(machines, MODEL, workers, EFFICIENCY)
            batch = share * workers
            steps = f"{-(-ROWS // batch):,}" if batch <= ROWS else "less than 1"
            lines.append(
                f"| {machines.name} | {workers:,} | {' | '.join(cells)} "
                f"| {share:,} | {batch:,} | {steps} |"
            )
        best = [end_of_strong_scaling(machines, MODEL, batch) for batch in STRONG_BATCHES]
        ends.append(f"| {machines.name} | {' | '.join(map(ending, best))} |")
    one_gpu, where = gpu()
    return "\n".join(
        [
            *lines,
            "",
            "| each worker has | "
            + " | ".join(f"fastest at batch {batch:,}" for batch in STRONG_BATCHES)
            + " |",
            "|---|" + "---|" * len(STRONG_BATCHES),
            *ends,
            "",
            f"A GPU's step: {1e3 * one_gpu['step']:.2f} ms and {one_gpu['images_per_second']:,.0f} "
            f"images/s, {where}.",
        ]
    )


def speed(found: Prediction) -> str:
    return f"{found.speedup:.2f} ×, {1 / found.efficiency:,.1f}"


def ending(found: Prediction) -> str:
    plural = "s" if found.workers > 1 else ""
    return f"{found.workers} worker{plural}: {found.speedup:.1f} ×, cost {1 / found.efficiency:.1f}"
