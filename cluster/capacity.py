"""What the connected cluster holds, and what of it each worker gets."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from job.config.config import TrainConfig
from job.engine import accelerator
from job.errors import InputError, NoGpuError
from job.text import counted

# Ray counts shares in ten-thousandths.
WHOLE = 10_000


class Share(NamedTuple):
    """What each worker gets."""

    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """Threads that compute there."""
        return max(1, int(self.cpus))


def shares(config: TrainConfig, *, is_own: bool = False) -> Share:
    """Divides the connected cluster among the workers.

    Args:
        config: How many workers, of what size.
        is_own: The cluster is this machine.

    Raises:
        InputError: The cluster does not hold that many workers of that size; the message says what
            is there.
        NoGpuError: As `check_gpus`.
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
    """Raises NoGpuError where Ray has no GPU to give and one is expected.

    It is expected where it is asked for, or the cluster is this machine, which has one.
    """
    if here.has_gpus or config.gpus_per_worker is not None:
        return
    if not is_own and config.device == "gpu":
        raise NoGpuError(f"the cluster has no GPU, {here}")
    if is_own and accelerator.is_expected(config.device, None):
        asked = "NVML, which it asks, does not answer; ray start --head --num-gpus=1 tells it"
        raise NoGpuError(f"Ray finds no GPU: {', and '.join(accelerator.likely_causes()) or asked}")


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
        """Whether Ray counts a GPU on any of the nodes."""
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
