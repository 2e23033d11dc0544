"""Machines that come when a run needs them: the cluster's autoscaler is asked for them, and let go.

Without this a run on a cluster that has shrunk to its head would be refused, because there is no
room; and a group of workers that waits to be placed gives up long before a machine has been rented
and set up. So would one that is submitted to machines of one's own when `ray up` has just ended: it
waits for the head only, and the others join half a minute later.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cluster.capacity import Room, Share, gpu_share, room
from cluster.files.start_commands import BOOTSTRAP, parse
from job.config.config import TrainConfig
from job.errors import JobError, StopRequestedError
from job.text import duration
from job.training.progress import NoteTaker
from job.waiting import QUIET_SECONDS

# To rent a machine, start it and install the wheels on it.
PATIENCE_SECONDS = 1200.0
# So long after `ray up` the machines of a list may still be joining. Those that have not are off.
# Whether they have GPUs is not known before; those of CUDA's libraries take long to install.
JOINING_SECONDS, GPU_JOINING_SECONDS = 300.0, 1200.0
POLL_SECONDS = 1.0

Bundle = dict[str, float]


@contextlib.contextmanager
def autoscaled(
    config: TrainConfig,
    progress: NoteTaker,
    stop_requested: Callable[[], int] = lambda: 0,
    *,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Has the connected cluster's autoscaler hold the machines for a run while the block runs.

    Where the machines are one's own, waits until they have joined. Nothing happens where the
    cluster has no autoscaler, or no machines that could hold workers.

    Args:
        config: How many workers, of what size.
        progress: Is told what is waited for.
        stop_requested: Asked often; a signal's number ends the waiting.
        patience: Seconds for which machines are waited for.

    Raises:
        JobError: They did not come.
        StopRequestedError: It was asked to stop.
    """
    least, most = config.worker_limits
    wait = functools.partial(_wait, progress=progress, stop=stop_requested, patience=patience)
    if own := own_machines():
        wait(functools.partial(_not_joined, own, config), f"--workers {least}")
        yield
        return
    types = worker_types()
    share = share_for(config, types)
    if share is None:
        yield
        return
    from ray.autoscaler.sdk import request_resources

    # Stands until it is replaced, so that machines between two attempts are not idle.
    bundle = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}
    request_resources(bundles=[bundle] * most)
    try:
        wait(functools.partial(_no_room, share, least), f"--workers {least}")
        yield
    finally:
        # Where the cluster is gone there is nothing to let go.
        with contextlib.suppress(Exception):
            request_resources(bundles=[])


class Own(NamedTuple):
    """The machines that a cluster file lists.

    Attributes:
        size: How many they are, with the head.
        since: When `ray up` was called, as `time.time()`.
        have_gpus: The workers' `ray start` says so, with `--num-gpus`.
    """

    size: int
    since: float
    have_gpus: bool = False


def own_machines(path: str = BOOTSTRAP) -> Own | None:
    """One's own machines that form the cluster; None if they are rented, or with no autoscaler."""
    config = _bootstrap(path)
    try:
        if config["provider"]["type"] != "local":
            return None
        workers = min(len(config["provider"]["worker_ips"]), config["max_workers"])
        since = os.stat(os.path.expanduser(path)).st_mtime
        return Own(1 + workers, since, _gives_gpus(config.get("worker_start_ray_commands", ())))
    except (KeyError, TypeError):
        return None


def _gives_gpus(commands: Iterable[str]) -> bool:
    starts = [start for command in commands for start in parse(command)]
    return any(start.options.get("--num-gpus", "0") != "0" for start in starts)


def worker_types(path: str = BOOTSTRAP) -> list[Bundle]:
    """What each type of machine has that the autoscaler may start; empty without an autoscaler."""
    config = _bootstrap(path)
    try:
        kinds = config["available_node_types"]
        return [
            kind["resources"]
            for name, kind in kinds.items()
            if name != config["head_node_type"] and kind.get("max_workers", 0) > 0
        ]
    except (KeyError, AttributeError, TypeError):
        return []


def _bootstrap(path: str) -> Any:
    """What `ray up` left; None where there is nothing that can be read."""
    try:
        with open(os.path.expanduser(path)) as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


def share_for(config: TrainConfig, types: list[Bundle]) -> Share | None:
    """What one worker asks for; None where no type of machine holds it."""
    share = Share(config.cpus_per_worker or 1.0, gpu_share(config, Room(types)))
    return share if Room(types).places(share) else None


def _no_room(share: Share, wanted: int) -> str | None:
    there = room().places(share)
    return f"room for {there} of {wanted} workers" if there < wanted else None


def _not_joined(own: Own, config: TrainConfig) -> str | None:
    """What is missing of one's own machines; nothing if all are there.

    Whether they suffice is asked elsewhere. Those that stay away are missed only where it is too
    narrow without them, or where they alone can have GPUs: nobody's processors train while GPUs are
    being installed.
    """
    here = room()
    if len(here.nodes) >= own.size:
        return None
    lack = f"{len(here.nodes)} of {own.size} have joined"
    may_bring_gpus = config.device != "cpu" and config.gpus_per_worker != 0 and not here.has_gpus
    share = Share(config.cpus_per_worker or 1.0, gpu_share(config, here))
    if may_bring_gpus and own.have_gpus:
        share = share._replace(gpus=share.gpus or 1.0)
    since = time.time() - own.since
    if here.places(share) < config.worker_limits[0] or since < JOINING_SECONDS:
        return f"{lack}, no GPU has joined yet" if may_bring_gpus and share.gpus else lack
    if may_bring_gpus and since < GPU_JOINING_SECONDS:
        return f"{lack}, no GPU has joined yet (--device cpu goes on without)"
    return None


def _wait(
    missing: Callable[[], str | None],
    what: str,
    progress: NoteTaker,
    stop: Callable[[], int],
    patience: float,
) -> None:
    began = time.monotonic()
    said = began - QUIET_SECONDS
    while lack := missing():
        now = time.monotonic()
        if stop():
            raise StopRequestedError("stopped while waiting for machines", stop())
        if now - began > patience:
            raise JobError(
                f"{what}: {lack} after {patience:.0f} s; "
                "`ray status` on the head says what can't be had"
            )
        if now - said >= QUIET_SECONDS:
            said = now
            left = f"{duration(now - began)} so far, at most {duration(patience)}"
            progress.note(f"waiting for machines: {lack}; {left}")
        time.sleep(POLL_SECONDS)
