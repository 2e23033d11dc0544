"""NVIDIA's GPUs as they show without TensorFlow.

Whether one is to be expected here, which of their libraries TensorFlow needs help with, and why it
finds none.

Processors are 10 to 50 times slower, and TensorFlow goes on with them without a word. So whoever is
about to train asks `is_expected`.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import dataclasses
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from job.errors import NoGpuError

ROOT = Path("/")
VISIBLE = "CUDA_VISIBLE_DEVICES"
# TensorFlow 2.21 opens its libraries from libtensorflow_framework, which looks for NVIDIA's wheels
# where its RUNPATH says. cuSOLVER's folder stands in that of another library only. What is open
# already is found by its name, wherever it is.
OPENED_BY_PATH = ("cusolver",)
# Without one of these TensorFlow registers no GPU.
NEEDED = ("cublas", "cuda_runtime", "cudnn", "cufft", *OPENED_BY_PATH, "cusparse")
# CUDA 12 runs on drivers of this version. For compute capability 9.0 most of TensorFlow's kernels
# are PTX of CUDA 12.5, which an older driver can't compile.
LEAST_DRIVER, LEAST_DRIVER_FROM_PTX = 525, 555
FIRST_FROM_PTX = (9, 0)
COMPLAINT_SECONDS = 60.0
CARD = ("name", "driver_version", "compute_cap", "mig.mode.current")
ASK_SECONDS = 20.0
# Looks for GPUs as `start_tensorflow` does, in a process whose log is shown: the level of
# TensorFlow's C++ side can't be changed once it is imported.
LOOK = """
import ctypes, sys
for path in sys.argv[1:]:
    ctypes.CDLL(path)
import tensorflow
tensorflow.config.list_physical_devices("GPU")
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU as the driver's tool lists it: what is not known is None.

    Attributes:
        capability: Compute capability.
        is_divided: MIG is on, so that a process gets a slice.
    """

    name: str
    driver: str
    capability: tuple[int, int] | None
    is_divided: bool


def libraries() -> Path:
    """The folder beside TensorFlow where its libraries look for NVIDIA's wheels, there or not."""
    found = importlib.util.find_spec("tensorflow")
    # It is a dependency, and a package with an `__init__.py`.
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parents[1] / "nvidia"


def open_libraries() -> None:
    """Opens the libraries of NVIDIA's wheels that TensorFlow does not find by itself.

    It is called before TensorFlow is imported, and takes 0.3 s where the wheels are, and nothing
    elsewhere.
    """
    for path in _by_path():
        # Where what it needs is missing, TensorFlow's own complaint says more.
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)


def _by_path() -> Iterator[str]:
    for name in OPENED_BY_PATH:
        yield from map(str, (libraries() / name / "lib").glob(f"lib{name}.so.*"))


def is_expected(
    device: str,
    share: float | None,
    environ: Mapping[str, str] = os.environ,
    root: Path = ROOT,
) -> bool:
    """Whether a GPU is expected to compute.

    Args:
        device: `auto`, `gpu` or `cpu`, as asked for.
        share: GPUs that Ray gave this worker; None without Ray.
        environ: Says which GPUs the process may see.
        root: Above `dev`.
    """
    if device == "cpu" or share == 0:
        return False
    is_asked = device == "gpu" or share is not None
    return is_asked or (has_device(root) and not _hides_all(environ))


def has_device(root: Path = ROOT) -> bool:
    """Whether there is an NVIDIA device that this machine or container may use.

    That the kernel has a driver says nothing: containers without a GPU see it, too.
    """
    return _is_windows(root) or count_devices(root) > 0


def count_devices(root: Path = ROOT) -> int:
    """How many of NVIDIA's devices Linux has."""
    return len(list((root / "dev").glob("nvidia[0-9]*")))


def _is_windows(root: Path) -> bool:
    """Whether it is Linux within Windows, whose driver has neither a device nor a version here."""
    return (root / "usr/lib/wsl/lib/libcuda.so.1").exists()


def _hides_all(environ: Mapping[str, str]) -> bool:
    """Whether no GPU may be seen.

    CUDA stops reading at the first entry that names none: `-1`, or Slurm's `NoDevFiles`.
    """
    visible = environ.get(VISIBLE)
    return visible is not None and not re.match(r"\s*(\d|GPU-|MIG-)", visible)


def driver_version(root: Path = ROOT) -> str | None:
    """The version of NVIDIA's driver in the kernel, such as 570.86.15; None without one."""
    try:
        told = (root / "proc/driver/nvidia/version").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", told)
    return found[0] if found else None


def driver_problem(version: str, capability: tuple[int, int] | None = None) -> str:
    """What is wrong with a driver; empty where nothing is.

    Args:
        version: The driver's.
        capability: Compute capability of the GPU, if it is known.
    """
    least, card = LEAST_DRIVER, ""
    if capability is not None and capability >= FIRST_FROM_PTX:
        least = LEAST_DRIVER_FROM_PTX
        card = f" for compute capability {capability[0]}.{capability[1]}"
    if int(version.partition(".")[0]) >= least:
        return ""
    return f"NVIDIA's driver {version} is older than {least}, which TensorFlow needs{card}"


def cards() -> list[Card] | None:
    """The GPUs that the driver's tool lists; None where it is missing or does not answer.

    Of those that a container was not given it does not know.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode:
        return None
    rows = csv.reader(told.stdout.splitlines(), skipinitialspace=True)
    return [
        Card(
            name=name,
            driver=driver,
            capability=_capability(capability),
            is_divided=divided == "Enabled",
        )
        # It also says what worries it, in lines of other lengths.
        for name, driver, capability, divided in (row for row in rows if len(row) == len(CARD))
    ]


def _capability(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    return found and (int(found[1]), int(found[2]))


def greatest_capability() -> tuple[int, int] | None:
    """The greatest compute capability here, as CUDA takes the fastest first; None if not known."""
    found = [card.capability for card in cards() or ()]
    known = [capability for capability in found if capability is not None]
    return max(known) if known and len(known) == len(found) else None


def missing(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> NoGpuError:
    """The error for an expected GPU that TensorFlow can't find: its words and the likely cause."""
    causes = ", and ".join(likely_causes(environ, root)) or "`lenet doctor` looks further"
    return NoGpuError(f"TensorFlow finds no GPU ({complaint() or 'it does not say why'}): {causes}")


def likely_causes(
    environ: Mapping[str, str] = os.environ,
    root: Path = ROOT,
    machine: str = platform.machine(),
    wheels: Path | None = None,
) -> list[str]:
    """Why TensorFlow may find no GPU, as this machine tells; `wheels` as `libraries` by default."""
    if machine != "x86_64":
        return [f"TensorFlow's wheel for {machine} is built without CUDA, GPUs need x86_64"]
    if _hides_all(environ):
        return [f"{VISIBLE}={environ[VISIBLE]!r} hides all GPUs"]
    found = []
    if not has_device(root):
        found.append("there is no NVIDIA device (containers want --gpus all)")
    absent = [name for name in NEEDED if not ((wheels or libraries()) / name).is_dir()]
    if absent:
        found.append(
            f"NVIDIA's libraries are not installed ({', '.join(absent)}; they are in "
            "requirements-gpu.lock, which make venv GPU=1 takes)"
        )
    version = driver_version(root)
    if version is None and not _is_windows(root):
        found.append("NVIDIA's driver is not loaded")
    elif version and (problem := driver_problem(version)):
        found.append(problem)
    return found


def complaint(seconds: float = COMPLAINT_SECONDS) -> str:
    """What TensorFlow says, in one line, when it looks for GPUs and finds none; may be empty."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK, *_by_path()],
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "0",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {seconds:g} s"
    return said_of_gpus(done.stderr)


def said_of_gpus(log: str) -> str:
    """The complaints in a log of TensorFlow's C++ side: the first sentence of each.

    Where there are errors or warnings, it has those only.
    """
    lines = re.findall(r"^([IWEF])\d{4} \S+ +\d+ \S+\] (.*)", log, re.MULTILINE)
    about = [(level, text) for level, text in lines if re.search(r"cuda|gpu|dlopen", text, re.I)]
    grave = [text for level, text in about if level != "I"] or [text for _, text in about]
    return "; ".join(dict.fromkeys(re.split(r"\.( |$)", text)[0] for text in grave))
