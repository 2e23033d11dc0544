"""How long a training step takes with N workers: measured, fitted, carried to many on paper.

Measured on 1 to 4 simulated hosts; the fit is checked on points held out of it.

    python -m benchmarks.scaling.scaling measure  # needs root; goes on where it was interrupted
    python -m benchmarks.scaling.scaling fit  # keeps docs/results/scaling.json, prints tables
    python -m benchmarks.scaling.scaling predict --workers 8 --batch 64 --latency 20 --bandwidth 9

The model is in model.py, what it says of many workers in paper.py, the hosts in hosts.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import Any

from benchmarks.scaling.model import EMPTY, MODELS, Setting, fitted
from benchmarks.scaling.paper import SOFTWARE, Machines, strong, weak
from benchmarks.scaling.tables import GIGABIT, MODEL, RESULT, document, fit_table, paper_table
from job.errors import InputError

RAW = Path(__file__).parents[2] / "build" / "scaling.jsonl"
WORKERS, BATCHES = (1, 2, 3, 4), (64, 256)
LATENCIES, RATES = (0.0, 1e-3, 5e-3), (None, 125e6, 12.5e6)
CHOSEN, SEED = 5, 5
MICROSECOND = 1e-6


def design() -> Iterator[Setting]:
    """What is measured: some of all combinations, by chance, and always two without limits.

    One of these shows what the relay itself takes. Also what messages take that carry nothing.
    """
    chance = random.Random(SEED)
    for model, workers in product(MODELS, WORKERS):
        set_up = functools.partial(Setting, model=model, workers=workers)
        if workers == 1:
            yield from (set_up(batch=batch) for batch in BATCHES)
            continue
        yield set_up(batch=BATCHES[0])
        yield set_up(batch=BATCHES[0], relayed=True)
        others = list(product(BATCHES, LATENCIES, RATES))[1:]
        for batch, latency, rate in chance.sample(others, CHOSEN):
            relayed = (latency, rate) != (0.0, None)
            yield set_up(batch=batch, latency=latency, bandwidth=rate, relayed=relayed)
    for workers, latency in product(WORKERS[1:], LATENCIES):
        yield Setting(
            model=EMPTY, workers=workers, batch=workers, latency=latency, relayed=latency > 0
        )


def measure(raw: Path, only: tuple[str, int] | None) -> None:
    """Measures what of the design is not in the file yet, and appends it there.

    Args:
        raw: One point on a line.
        only: A model and a number of workers; all by default.
    """
    from benchmarks.scaling import hosts as scaling_hosts

    done = [setting_as_planned(point) for point in points_of(raw)]
    missing = [setting for setting in design() if setting not in done]
    for group, settings in groupby(missing, lambda setting: (setting.model, setting.workers)):
        if only not in (None, group):
            continue
        model, count = group
        scaling_hosts.check_quiet(scaling_hosts.others())
        with (
            scaling_hosts.Hosts(count) as hosts,
            scaling_hosts.Workers(hosts, model) as workers,
            raw.open("a") as file,
        ):
            for setting in settings:
                point = scaling_hosts.measured(hosts, workers, setting)
                file.write(json.dumps(point) + "\n")
                file.flush()
                print(json.dumps(point), file=sys.stderr, flush=True)


def setting_as_planned(point: Mapping[str, Any]) -> Setting:
    """Of a measured point, with the latency that its network was given."""
    return Setting(**{field.name: point[field.name] for field in dataclasses.fields(Setting)})


def points_of(raw: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []


def predicted(arguments: argparse.Namespace) -> str:
    """The answer to `predict`. Raises InputError."""
    if not arguments.bandwidth > 0:
        raise InputError("bandwidth", arguments.bandwidth, "must be above 0 Gbit/s")
    given = {
        name: getattr(arguments, name)
        for name in ("images_per_second", "step", *SOFTWARE)
        if getattr(arguments, name) is not None
    }
    machines = Machines.as_fitted(
        document()["coefficients"],
        arguments.model,
        name="given",
        latency=arguments.latency * MICROSECOND,
        bandwidth=arguments.bandwidth * GIGABIT,
        **given,
    )
    lines = ["workers   step, ms   images/s  speed-up  efficiency  worker-hours an epoch"]
    for workers in arguments.workers:
        found = (
            weak(machines, arguments.model, workers, arguments.share)
            if arguments.share
            else strong(machines, arguments.model, workers, arguments.batch)
        )
        lines.append(
            f"{workers:7,} {1e3 * found.seconds:10.2f} {found.batch / found.seconds:10,.0f} "
            f"{found.speedup:8.2f}× {100 * found.efficiency:9.1f} % {found.worker_hours:14.4f}"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="time steps on simulated hosts")
    measuring.add_argument("--only", nargs=2, metavar=("MODEL", "WORKERS"))
    commands.add_parser("fit", help="fit what was measured")
    asking = commands.add_parser("predict", help="say what many workers would do")
    asking.add_argument("--model", default=MODEL, choices=MODELS)
    asking.add_argument("--workers", type=int, nargs="+", required=True)
    images = asking.add_mutually_exclusive_group(required=True)
    images.add_argument("--batch", type=int, help="of all workers together")
    images.add_argument("--share", type=int, help="images of each worker")
    asking.add_argument("--latency", type=float, required=True, help="µs, one way")
    asking.add_argument("--bandwidth", type=float, required=True, help="Gbit/s of each worker")
    asking.add_argument("--images-per-second", type=float, help="of one worker; as fitted")
    asking.add_argument("--step", type=float, help="seconds of an empty step; as fitted")
    asking.add_argument("--message", type=float, help="seconds of software a message; as fitted")
    asking.add_argument("--byte", type=float, help="seconds of software a byte; as fitted")
    asking.add_argument("--hop", type=float, help="latencies a message; as fitted")
    asking.add_argument("--window", type=float, help="latencies a byte; as fitted")
    arguments = parser.parse_args(words)
    try:
        {"measure": run_measuring, "fit": run_fit, "predict": lambda a: print(predicted(a))}[
            arguments.command
        ](arguments)
    except InputError as error:
        parser.error(str(error))


def run_measuring(arguments: argparse.Namespace) -> None:
    from benchmarks.scaling import hosts as scaling_hosts

    if os.geteuid() != 0:
        sys.exit("measuring makes network namespaces and mounts: call it as root")
    if scaling_hosts.INSIDE not in os.environ:
        sys.exit(scaling_hosts.alone(["-m", __spec__.name, *sys.argv[1:]]))
    RAW.parent.mkdir(parents=True, exist_ok=True)
    model, workers = arguments.only or (None, 0)
    measure(RAW, (model, int(workers)) if model else None)


def run_fit(_: argparse.Namespace) -> None:
    from benchmarks.kit.paired import circumstances

    order = list(design())
    points = sorted(points_of(RAW), key=lambda point: order.index(setting_as_planned(point)))
    processors = len(os.sched_getaffinity(0))
    found = {
        **circumstances("tensorflow"),
        "processors": processors,
        "planned": len(order),
        **fitted(points, processors),
        "points": points,
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(fit_table(), paper_table(), sep="\n\n")


if __name__ == "__main__":
    main()
