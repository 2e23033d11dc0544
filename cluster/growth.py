"""Machines that come when a run needs them: the cluster's autoscaler is asked for them, and let go.

Without this a run on a cluster that has shrunk to its head would be refused, because there is no
room; and a group of workers that waits to be placed gives up long before a machine has been rented
and set up.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator

from cluster.session import Room, Share, room
from job.config import TrainConfig
from job.errors import Interrupted, JobError
from job.progress import NoteTaker

# `ray up` leaves it on the head, where the driver runs, for the autoscaler.
BOOTSTRAP = "~/ray_bootstrap_config.yaml"
# To rent a machine, start it and install the wheels on it.
PATIENCE_SECONDS = 1200.0
NOTE_SECONDS = 60.0
POLL_SECONDS = 1.0

Bundle = dict[str, float]


@contextlib.contextmanager
def grown(
    config: TrainConfig,
    progress: NoteTaker,
    stop_requested: Callable[[], int] = lambda: 0,
    *,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[None]:
    """Has the autoscaler of the connected cluster hold the machines for a run while the block runs.

    Nothing happens where the cluster has no autoscaler, or no machines that could hold workers.

    Args:
        config: How many workers, of what size.
        progress: Is told what is waited for.
        stop_requested: Asked often; a signal's number ends the waiting.
        patience: Seconds for which machines are waited for.

    Raises:
        JobError: They did not come.
        Interrupted: It was asked to stop.
    """
    types = worker_types()
    share = share_for(config, types)
    if share is None:
        yield
        return
    from ray.autoscaler.sdk import request_resources

    least, most = config.worker_limits
    # Stands until it is replaced, so that machines between two attempts are not idle.
    bundle = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}
    request_resources(bundles=[bundle] * most)
    try:
        _wait(share, least, progress, stop_requested, patience)
        yield
    finally:
        # Where the cluster is gone there is nothing to let go.
        with contextlib.suppress(Exception):
            request_resources(bundles=[])


def worker_types(path: str = BOOTSTRAP) -> list[Bundle]:
    """What each type of machine has that the autoscaler may start; empty without an autoscaler."""
    try:
        with open(os.path.expanduser(path)) as stream:
            config = json.load(stream)
        kinds = config["available_node_types"]
        return [
            kind["resources"]
            for name, kind in kinds.items()
            if name != config["head_node_type"] and kind.get("max_workers", 0) > 0
        ]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def share_for(config: TrainConfig, types: list[Bundle]) -> Share | None:
    """What one worker asks for; None where no type of machine holds it."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if Room(types).has_gpus else 0.0
    share = Share(config.cpus_per_worker or 1.0, gpus)
    return share if Room(types).places(share) else None


def _wait(
    share: Share,
    wanted: int,
    progress: NoteTaker,
    stop_requested: Callable[[], int],
    patience: float,
) -> None:
    began = time.monotonic()
    said = began - NOTE_SECONDS
    while (there := room().places(share)) < wanted:
        now = time.monotonic()
        if stop_requested():
            raise Interrupted("stopped while waiting for machines", stop_requested())
        if now - began > patience:
            raise JobError(
                f"--workers {wanted}: room for {there} after {patience:.0f} s; "
                "`ray status` on the head says what can't be had"
            )
        if now - said >= NOTE_SECONDS:
            said = now
            progress.note(f"waiting for machines: room for {there} of {wanted} workers")
        time.sleep(POLL_SECONDS)
