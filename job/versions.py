"""What computes, for the record."""

from __future__ import annotations

import importlib.metadata
import platform

RECORDED = ("lenet-on-ray", "tensorflow", "keras", "ray", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    packages = {name: importlib.metadata.version(name) for name in RECORDED}
    return {"python": platform.python_version(), **packages}
