"""What computes, for the record."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

RECORDED = ("lenet-on-ray", "tensorflow", "keras", "ray", "numpy")
# Of NVIDIA's wheels, by the name under which a result has them.
CUDA_WHEELS = {
    "cuda": "nvidia-cuda-runtime-cu12",
    "cudnn": "nvidia-cudnn-cu12",
    "nccl": "nvidia-nccl-cu12",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What trained a run.

    Attributes:
        from_step: The first step that it trained after, 0 for all of them.
        device: Its kind and name, as `job.engine.runtime.hardware` has it.
        accelerator: As `job.engine.runtime.accelerator_record` has it.
    """

    from_step: int
    device: str
    accelerator: Mapping[str, Any] | None = None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers, of Ray if it is there."""
    packages = {name: version for name in RECORDED if (version := installed(name))}
    return {"python": platform.python_version(), **packages}


def installed(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
