"""How long training stands still for checkpoints in an object store that answers after 200 ms.

    python -m benchmarks.speed.checkpoint_stall               # measures, keeps docs/results/
    python -m benchmarks.speed.checkpoint_stall --table       # prints the table of the kept figures

LeNet5 at batch 128 trains with a checkpoint every 10 s, in turn with our uploads, in the background
and with verification, and with what a callback that reports a checkpoint does in Ray Train's
synchronous mode: `model.save` into a folder, and a `pyarrow.fs.copy_files` of it while training
waits. A real S3 server stands behind a proxy that adds the latency to each request. The share is
that of the time in which the training thread does not train because of checkpoints.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "results" / "checkpoint_stall.json"
LATENCY_SECONDS = 0.2
EVERY_SECONDS = 10.0
BATCH = 128
PAIRS = 5
CHECKPOINTS = 2


class Training:
    """An engine that trains, and the time it loses to checkpoints."""

    def __init__(self) -> None:
        from job.engine.runtime import start_tensorflow

        start_tensorflow()
        from job.config.resolve import resolve
        from job.data.catalogue import CATALOGUE
        from job.data.sources import obtain
        from job.data.splits import training_splits
        from job.engine.device_split import DeviceSplit
        from job.engine.engine import Engine
        from job.engine.randomness import batches, example_order

        train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], 12_800)
        self.rows = batches(example_order(1, 0, len(train)), BATCH)[:20]
        self.engine = Engine(resolve({"batch_size": BATCH}), total_steps=10_000)
        self.data = DeviceSplit.load(train)
        self.step = 0
        self.span()

    def span(self) -> None:
        self.engine.train_span(self.data, self.rows, self.step)
        self.step += len(self.rows)

    def state(self) -> Any:
        from job.runs.state import RunState

        weights = self.engine.weights()
        return RunState(
            step=self.step,
            weights=weights,
            optimizer=self.engine.optimizer_arrays(),
            best_weights=weights,
        )

    def share(self, checkpoint: Callable[[], None]) -> float:
        """Trains through some checkpoints; returns the share of time lost to them, in percent."""
        began = time.perf_counter()
        lost = 0.0
        for number in range(1, CHECKPOINTS + 1):
            while time.perf_counter() - began < number * EVERY_SECONDS:
                self.span()
            before = time.perf_counter()
            checkpoint()
            lost += time.perf_counter() - before
        return 100 * lost / (time.perf_counter() - began)


def measure() -> dict[str, Any]:
    # The server and the proxy are those of the tests.
    from tests.kit.fault_proxy import FaultProxy
    from tests.kit.object_store import ObjectStore

    training = Training()
    with (
        tempfile.TemporaryDirectory() as folder,
        ObjectStore(Path(folder) / "s3") as store,
        FaultProxy(store.endpoint) as proxy,
    ):
        os.environ.update(store.env(proxy.endpoint))
        proxy.latency = LATENCY_SECONDS
        sides = {
            "background": background(training, f"s3://{store.bucket}/ours"),
            "synchronous": synchronous(training, f"{store.bucket}/theirs", proxy.endpoint),
        }
        shares: dict[str, list[float]] = {name: [] for name in sides}
        requests: dict[str, float] = {}
        for pair in range(PAIRS):
            for name, (checkpoint, wait) in sides.items():
                before = len(proxy.requests)
                shares[name].append(training.share(checkpoint))
                wait()
                requests[name] = (len(proxy.requests) - before) / CHECKPOINTS
            print({name: values[pair] for name, values in shares.items()}, file=sys.stderr)
    return {"shares": shares, "requests": requests}


def background(training: Training, place: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What `lenet train` does."""
    from job.storage.background import Uploads
    from job.storage.checkpoints import CheckpointStore
    from job.storage.open import open_storage

    checkpoints = CheckpointStore(open_storage(place, patience=600), "benchmark")
    checkpoints.claim()
    uploads = Uploads(background=True)

    def checkpoint() -> None:
        state = training.state()
        uploads.submit("checkpoint", lambda: checkpoints.save(state.step, state.to_files()))

    return checkpoint, uploads.wait


def synchronous(
    training: Training, place: str, endpoint: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """What Ray Train's `report` does with the checkpoint of a callback, upload mode SYNC."""
    from pyarrow import fs

    remote = fs.S3FileSystem(
        endpoint_override=endpoint.removeprefix("http://"), scheme="http", region="us-east-1"
    )

    def checkpoint() -> None:
        with tempfile.TemporaryDirectory() as folder:
            training.engine.model.save(Path(folder) / "model.keras")
            fs.copy_files(
                folder,
                f"{place}/checkpoint_{training.step}",
                source_filesystem=fs.LocalFileSystem(),
                destination_filesystem=remote,
            )

    return checkpoint, lambda: None


def table(path: Path = RESULT) -> str:
    document = json.loads(path.read_text())
    lines = [
        "| upload | training stands still: median (min–max) | requests per checkpoint |",
        "|---|---|---|",
    ]
    for name, values in document["shares"].items():
        lines.append(
            f"| {name} | {statistics.median(values):.2f} % ({min(values):.2f}–{max(values):.2f}) "
            f"| {document['requests'][name]:.1f} |"
        )
    where = document["where"]
    lines += ["", f"{len(values)} pairs in turn, {where}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table of the kept figures")
    if not parser.parse_args().table:
        figures = measure()
        from job.engine.runtime import device_name

        versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("tensorflow", "ray"))
        where = f"{datetime.date.today()}, {device_name('cpu')}, {versions}"
        RESULT.write_text(json.dumps({"where": where, **figures}, indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
