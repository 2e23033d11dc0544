"""What a machine tells about its GPUs when `lenet doctor` asks."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from job.engine import accelerator
from job.errors import NoGpuError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpus:
    """What a machine tells.

    Attributes:
        there: NVIDIA devices that this machine or container has.
        allowed: How many of them a process may see.
        seen: Those that TensorFlow sees: the name and the compute capability of each.
        driver: Version of NVIDIA's driver; None where it is not known.
        is_divided: MIG is on.
        problem: Why TensorFlow sees none though one is expected; else empty.
    """

    there: int
    allowed: int
    seen: tuple[tuple[str, tuple[int, int] | None], ...]
    driver: str | None
    is_divided: bool
    problem: str = ""


def gpus(device: str = "auto") -> Gpus:
    """Looks at this machine, and starts TensorFlow in this process with one GPU if it has any.

    Args:
        device: What is to compute, as `--device` names it.
    """
    from job.engine.runtime import start_tensorflow

    listed, problem = accelerator.cards(), ""
    # More threads would measure the processors, not the network.
    try:
        start_tensorflow(threads=1, device=device)
    except NoGpuError as missing:
        problem = missing.reason
        start_tensorflow(threads=1, device="cpu")
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    there = accelerator.count_devices() if listed is None else len(listed)
    is_divided = any(card.is_divided for card in listed or ())
    return Gpus(
        there=there,
        allowed=allowed(there, is_divided=is_divided),
        seen=tuple(
            (one.get("device_name", "GPU"), one.get("compute_capability")) for one in details
        ),
        driver=listed[0].driver if listed else accelerator.driver_version(),
        is_divided=is_divided,
        problem=problem,
    )


def computes_on() -> str:
    """The kind of device on which this process computes, after `gpus`."""
    from job.engine.runtime import has_gpu

    return "gpu" if has_gpu() else "cpu"


def allowed(there: int, *, is_divided: bool, environ: Mapping[str, str] = os.environ) -> int:
    """How many of the GPUs a process may see.

    CUDA reads the list up to the first entry that names none, and of slices it gives a process one.
    """
    visible = environ.get(accelerator.VISIBLE)
    if visible is not None:
        named = 0
        for entry in map(str.strip, visible.split(",")):
            if not (entry.startswith(("GPU-", "MIG-")) or (entry.isdigit() and int(entry) < there)):
                break
            named += 1
        there = min(there, named)
    return min(there, 1) if is_divided else there
