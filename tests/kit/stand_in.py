"""The stand-in GPU of tests/kit/stand_in_gpu/device.cc, compiled once in a session of tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.engine.accelerator import VISIBLE

HERE = Path(__file__).parent
SOURCE = HERE / "stand_in_gpu" / "device.cc"
COUNT = HERE / "stand_in_gpu" / "count.py"
# The name that TensorFlow gives it.
NAME = "Stand-in GPU"
# TensorFlow's own, for what it loads as it is imported.
PLUG_IN = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"
# For a process that shall have none, whatever the environment says.
NONE = {PLUG_IN: ""}
# TensorFlow tells the flags that its headers want, and of its libraries only the smaller one.
FLAGS = """
import tensorflow as tf
if not tf.sysconfig.get_build_info()["is_cuda_build"]:
    raise SystemExit("this TensorFlow has no kernels for GPUs, which a stand-in takes as its own")
flags = tf.sysconfig.get_compile_flags() + tf.sysconfig.get_link_flags()
print(*flags, "-l:libtensorflow_cc.so.2", f"-Wl,-rpath,{tf.sysconfig.get_lib()}", sep="\\n")
"""


class StandIn:
    """A compiled stand-in: `env()` is what a process needs to have it."""

    def __init__(self, library: Path) -> None:
        self.library = library

    def env(self, count: int = 1, counts: Path | None = None) -> dict[str, str]:
        """Variables for a process of the product.

        Args:
            count: How many GPUs the machine has.
            counts: A folder in which each process leaves what it counted.
        """
        kept = {"STAND_IN_GPU_COUNTS": str(counts)} if counts else {}
        # Those of this machine are hidden, as these would be.
        shown = {VISIBLE: ",".join(map(str, range(count)))} if VISIBLE in os.environ else {}
        return {PLUG_IN: str(self.library), "STAND_IN_GPUS": str(count), **kept, **shown}


@pytest.fixture(scope="session")
def stand_in_gpu(tmp_path_factory) -> StandIn:
    """Skips where it can't be compiled."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to compile the stand-in GPU with")
    told = subprocess.run([sys.executable, "-c", FLAGS], capture_output=True, text=True)
    if told.returncode:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    library = tmp_path_factory.mktemp("stand-in") / "libstand_in_gpu.so"
    # Order counts: the libraries after what needs them. `-w`: TensorFlow's headers warn.
    command = [compiler, "-O1", "-fPIC", "-shared", "-DNDEBUG", "-w", SOURCE, "-o", library]
    done = subprocess.run([*command, *told.stdout.split("\n")[:-1]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return StandIn(library)
