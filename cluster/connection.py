"""The connection to Ray: which cluster, and whether it holds what a run asks for."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from job.config.config import TrainConfig
from job.engine import accelerator
from job.engine.runtime import stderr_held_back
from job.errors import InputError, NoGpu
from job.text import counted

# Ray's defaults take a minute to notice a link that is down, and 418 s to fail what waits for it.
# With these, a dead node is noticed in 8.6 s and a dead link in 11 s. They must be set where a
# cluster's `ray start` runs too; here they serve a cluster that is started for one run.
FAULT_DETECTION = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
# Ray Train looks at its workers this often; its default of 2 s is a part of every detection time.
TRAIN_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
# Nobody takes away the machine on which a run has started a cluster of its own.
WATCH_PREEMPTION = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# After a node's death Ray Train may still count on it, and then waits so long for a group that
# can't be placed, a minute by default, before it takes what is left (measured: 75 s until training
# went on, against 35 s).
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}

CONNECT_SECONDS = 5.0
# Ray counts shares in ten-thousandths.
WHOLE = 10_000


class Unreachable(InputError):
    """The address is one, but there is no cluster at it that this process can use."""


class Share(NamedTuple):
    """What each worker gets."""

    cpus: float
    gpus: float


@contextlib.contextmanager
def connected(
    address: str | None,
    *,
    elastic: bool = False,
    verbose: bool = False,
    preload: str | None = None,
) -> Iterator[bool]:
    """Connects to a Ray cluster, or starts one in this machine for the time of the block. Nothing
    happens where this process is connected already, as one of a trial is. Yields whether the
    cluster is this process' own.

    Args:
        address: `auto` (the running one), `HOST:PORT`, `local`, or None for the running one if
            there is one and else a new one.
        elastic: The number of workers may change during the run.
        verbose: Let Ray and the workers write to the terminal.
        preload: A module that the processes of a new cluster import before they are needed.

    Raises:
        InputError: There is no cluster at the address, or it is of another version.
    """
    os.environ.update(TRAIN_SETTINGS)
    for name, value in FAULT_DETECTION.items():
        os.environ.setdefault(name, value)
    if elastic:
        os.environ.update(ELASTIC_SETTINGS)
    if preload:
        os.environ["RAY_preload_python_modules"] = preload  # noqa: SIM112  Ray's own spelling
    named = None if address in ("auto", "local") else address
    if named is not None:
        _check_reachable(named)
    import ray
    from ray.exceptions import AuthenticationError, RaySystemError

    if ray.is_initialized():
        yield False
        return
    if named is not None:
        _check_answer(named)
    elif _is_left_behind(address):
        address = "local"
    level = "INFO" if verbose else "ERROR"
    # Inherited by a cluster that is started now.
    os.environ[WATCH_PREEMPTION] = "0"
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            logging_level=level,
            log_to_driver=verbose,
            # A dashboard that nobody asked for costs a second and a port.
            include_dashboard=False,
        )
    except AuthenticationError as error:
        raise _refused(address) from error
    except (ConnectionError, ValueError, RuntimeError, RaySystemError) as error:
        reason = " ".join(str(error).split())
        raise Unreachable(
            "--address", address, f"no Ray cluster can be used there: {reason}"
        ) from error
    if callable(on_termination):
        # Ray has put its own in the place, which exits at once: `ray job stop`, say, would cost the
        # steps since the last checkpoint.
        signal.signal(signal.SIGTERM, on_termination)
    # Whatever the level, Ray prints its nodes' errors to stdout, which is kept for results; a lost
    # worker is said in one line by the attempt that follows.
    with contextlib.ExitStack() as after:
        after.callback(ray.shutdown)
        sink = sys.stderr if verbose else after.enter_context(open(os.devnull, "w"))
        after.enter_context(contextlib.redirect_stdout(sink))
        is_own = ray._private.worker._global_node.is_head()
        os.environ[WATCH_PREEMPTION] = str(int(not is_own))
        yield is_own


def _is_left_behind(address: str | None) -> bool:
    """Whether the running cluster that Ray would find is one that was killed, and could not take
    its address with it."""
    from ray._private.services import find_bootstrap_address, find_gcs_addresses

    if address not in (None, "auto") or os.environ.get("RAY_ADDRESS"):
        return False
    last = find_bootstrap_address(None)
    if last is None:
        return False
    if address == "auto" and find_gcs_addresses():
        return False
    try:
        _check_reachable(last)
    except InputError as gone:
        if address is None:
            return True
        raise Unreachable(
            "--address",
            address,
            f"the last cluster of this machine is gone ({last}); start one "
            "with ray start --head, or give local or HOST:PORT",
        ) from gone
    return False


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or "/" in host:
        raise InputError("--address", address, "give auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Unreachable(
            "--address", address, f"no Ray cluster answers there ({error}); is its head running?"
        ) from error


def _check_answer(address: str) -> None:
    """Asks the cluster's head once. Ray itself would ask again and again, print a line for each,
    and not say in the end that it was the token."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # missing in Ray's stub
    from ray.exceptions import AuthenticationError, RayError

    failure: RayError | None = None
    with stderr_held_back():
        try:
            # Without a token where one is needed, the client would end this process.
            ensure_token_if_auth_enabled(create_token_if_missing=False)
            GcsClient(address=address)
        except RayError as error:
            failure = error
    if isinstance(failure, AuthenticationError):
        raise _refused(address) from failure
    if failure:
        reason = f"what answers there is no Ray head: {' '.join(str(failure).split())}"
        raise Unreachable("--address", address, reason) from failure


def _refused(address: str | None) -> Unreachable:
    return Unreachable(
        "--address",
        address,
        "the cluster asks for a token that this process does not have; set RAY_AUTH_MODE=token, "
        "with the cluster's ~/.ray/auth_token here (docs/security.md)",
    )


def shares(config: TrainConfig, *, is_own: bool = False) -> Share:
    """Divides the connected cluster among the workers.

    Args:
        config: How many workers, of what size.
        is_own: The cluster is this machine.

    Raises:
        InputError: The cluster does not hold that many workers of that size; the message says what
            is there.
        NoGpu: As `check_gpus`.
    """
    here = room()
    check_gpus(config, here, is_own=is_own)
    least, most = config.worker_limits
    gpus = gpu_share(config, here)
    cpus = config.cpus_per_worker
    if cpus is None:
        largest = int(max((node.get("CPU", 0) for node in here.nodes), default=0))
        fitting = [c for c in range(largest, 0, -1) if here.places(Share(c, gpus)) >= most]
        cpus = float(fitting[0]) if fitting else 1.0
    share = Share(cpus, gpus)
    places = here.places(share)
    if places < least:
        raise InputError(
            "--workers",
            config.workers,
            f"workers of {cpus:g} CPUs and {gpus:g} GPUs: there is room for {places}; "
            f"{here}; {_remedies(here, share, least)}",
        )
    return share


def gpu_share(config: TrainConfig, here: Room) -> float:
    """GPUs for each worker: as asked for, and one where the cluster has any.

    Raises:
        InputError: It is asked for a GPU and for none.
    """
    if config.device == "cpu":
        return 0.0
    if config.device == "gpu" and config.gpus_per_worker == 0:
        raise InputError("--device", "gpu", "leave it or --gpus-per-worker 0 out")
    if config.gpus_per_worker is not None:
        return config.gpus_per_worker
    return 1.0 if here.has_gpus or config.device == "gpu" else 0.0


def check_gpus(config: TrainConfig, here: Room, *, is_own: bool) -> None:
    """Raises NoGpu where Ray has none to give and one is expected: it is asked for, or the cluster
    is this machine, which has one."""
    if here.has_gpus or config.gpus_per_worker is not None:
        return
    if not is_own and config.device == "gpu":
        raise NoGpu(f"the cluster has no GPU, {here}")
    if is_own and accelerator.is_expected(config.device, None):
        asked = "NVML, which it asks, does not answer; ray start --head --num-gpus=1 tells it"
        raise NoGpu(f"Ray finds no GPU: {', and '.join(accelerator.likely_causes()) or asked}")


def _remedies(here: Room, share: Share, least: int) -> str:
    """What to ask for instead, in words: only what there is room for."""
    found = []
    if places := here.places(share):
        found.append(f"--workers {places}")
    parts = (math.floor(WHOLE / k) / WHOLE for k in range(2, 101))
    smaller = (part for part in parts if part < share.gpus)
    part = next((p for p in smaller if here.places(share._replace(gpus=p)) >= least), None)
    if part:
        found.append(f"--gpus-per-worker {part:g}, which shares each GPU")
    if share.gpus and here.places(share._replace(gpus=0.0)) >= least:
        found.append("--device cpu")
    fewer = (c for c in (*range(int(share.cpus), 0, -1), 0.5) if c < share.cpus)
    cpus = next((c for c in fewer if here.places(share._replace(cpus=c)) >= least), None)
    if cpus:
        found.append(f"--cpus-per-worker {cpus:g}")
    return f"try {' or '.join(found)}" if found else "it needs more nodes, or larger ones"


class Room(NamedTuple):
    """The connected cluster: `nodes` says what each node has, by resource."""

    nodes: list[dict[str, Any]]

    @property
    def has_gpus(self) -> bool:
        return any(node.get("GPU") for node in self.nodes)

    def places(self, share: Share) -> int:
        """How many workers of that size fit."""

        wanted = {"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})}

        def on(node: dict[str, Any]) -> int:
            return min(_times(node.get(name, 0), amount) for name, amount in wanted.items())

        return sum(map(on, self.nodes))

    def __str__(self) -> str:
        there = ", ".join(
            f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in self.nodes
        )
        return f"{counted(len(self.nodes), 'node')} with {there}"


def _times(there: float, wanted: float) -> int:
    """How often an amount is there. In binary fractions 0.2 would fit four times into 1."""
    return round(there * WHOLE) // max(1, round(wanted * WHOLE))


def room() -> Room:
    """What the connected cluster holds."""
    import ray

    return Room([node["Resources"] for node in ray.nodes() if node["Alive"]])
