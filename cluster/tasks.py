"""Independent tasks on the processors of a connected Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cluster.connection import connected
from job.errors import JobError
from job.reasons import reason_of
from job.waiting import waiting

POLL_SECONDS = 0.2


@contextlib.contextmanager
def on_cluster(address: str | None, *, verbose: bool = False) -> Iterator[Callable[..., Any]]:
    """Connects as `connected` for the time of the block, and gives `run_tasks`."""
    with connected(address, verbose=verbose):
        yield run_tasks


def run_tasks(
    function: Callable[[Any, str], Any],
    shared: Any,
    names: Sequence[str],
    stop_requested: Callable[[], int] = lambda: 0,
) -> Iterator[tuple[str, Any]]:
    """Calls `function(shared, name)` for each name on a processor of its own.

    As many run at a time as there are processors. A task whose process is lost is tried again by
    Ray.

    Args:
        function: Of a module; equal arguments must give equal results.
        shared: What all need; it is sent to each node once.
        names: The tasks, those that take longest first.
        stop_requested: Asked often; a signal's number ends the iteration early.

    Yields:
        Each name with its result, as they come in.

    Raises:
        JobError: A task failed, or its process was lost too often.
    """
    import ray

    held = ray.put(shared)
    task = ray.remote(num_cpus=1)(function)
    pending = {task.remote(held, name): name for name in names}
    try:
        with waiting(f"{', '.join(names)}, each as it comes") as heard:
            while pending and not stop_requested():
                done, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                for reference in done:
                    name = pending.pop(reference)
                    heard()
                    yield name, _result(name, reference)
    finally:
        # A cluster that goes on must not work for nobody.
        for reference in pending:
            ray.cancel(reference, force=True)


def _result(name: str, reference: Any) -> Any:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(reference)
    except RayError as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise JobError(f"{name}: {reason}") from error
