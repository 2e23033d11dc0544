"""How long `lenet runs` takes with a thousand runs: on disk, and in an object store 50 ms away.

    python -m benchmarks.commands.listing               # measures, keeps docs/results/listing.json
    python -m benchmarks.commands.listing --table       # prints the table of the kept figures

The store is a real S3 server on this machine; a proxy before it delays every request.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.kit.paired import circumstances
from job.storage.open import open_storage
from tests.kit.fault_proxy import FaultProxy
from tests.kit.object_store import ObjectStore

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "results" / "listing.json"
KEPT = ROOT / "tests" / "test_runs" / "kept" / "finished"
RUNS, ROUNDS = 1_000, 5
LATENCY = 0.05
# What a list reads, and one more of those that it only counts.
FILES = ("config.json", "result.json", "history.csv")


def fill(place: str) -> None:
    """A place with so many finished runs."""
    root = open_storage(place)
    contents = {name: (KEPT / name).read_bytes() for name in FILES}
    for number in range(RUNS):
        for name, content in contents.items():
            root.write(f"run-{number:04d}/{name}", content)


def seconds(place: str, environment: dict[str, str]) -> float:
    """Of one call of the command."""
    command = [sys.executable, "-m", "tuning.cli", "runs", "--json", "--storage", place]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    took = time.perf_counter() - began
    if len(json.loads(done.stdout)) != RUNS:
        raise RuntimeError("not all runs were listed")
    return took


def measure(rounds: int) -> dict[str, Any]:
    """The document that is kept."""
    with tempfile.TemporaryDirectory() as scratch, ObjectStore(Path(scratch, "store")) as store:
        disk, bucket = f"{scratch}/runs", f"s3://{store.bucket}/runs"
        os.environ.update(store.env())
        fill(disk)
        fill(bucket)
        found: dict[str, list[float]] = {"disk": [], "store": []}
        with FaultProxy(store.endpoint) as proxy:
            proxy.latency = LATENCY
            away = {**os.environ, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
            for _ in range(rounds):
                found["disk"].append(seconds(disk, dict(os.environ)))
                found["store"].append(seconds(bucket, away))
    return {**circumstances("boto3"), "runs": RUNS, "latency": LATENCY, "seconds": found}


def table(path: Path = RESULT) -> str:
    """The kept figures as Markdown."""
    document = json.loads(path.read_text())
    names = {"disk": "on disk", "store": f"in a store {document['latency'] * 1000:.0f} ms away"}
    lines = [f"| {document['runs']:,} runs | `lenet runs`, s (min–max) |", "|---|---|"]
    for name, words in names.items():
        values = document["seconds"][name]
        median = statistics.median(values)
        lines.append(f"| {words} | **{median:.1f}** ({min(values):.1f}–{max(values):.1f}) |")
    count = len(document["seconds"]["disk"])
    note = f"Medians of {count} calls in turn; {document['date']}, {document['device']}."
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the kept figures only")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if not arguments.table:
        RESULT.write_text(json.dumps(measure(arguments.rounds), indent=1) + "\n")
    print(table())


if __name__ == "__main__":
    main()
