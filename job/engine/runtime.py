"""TensorFlow's settings for the hardware, in one place, each with the measurement behind it.

- oneDNN: off by default on AVX2 processors. LeNet5 at batch 32 on 2 such cores: 2,930-3,560
  images/s with it, 1,720-2,200 without. It must be set before TensorFlow is imported.
- Threads: as many as the processors this process may use (`processors`); more only wait for each
  other. On a CPU each operation keeps to one thread, and the engine gives every thread a part of
  the batch (`lanes`): LeNet5 at batch 32 a quarter faster than where the threads share each
  operation.
- GPUs: a process computes on one, and sees no other. Memory grows on demand, so that several jobs
  can share one; operations are deterministic, so that equal seeds give equal weights. CPU kernels
  are deterministic anyway (tested).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.engine import accelerator
from job.errors import NoGpuError
from job.versions import CUDA_WHEELS, installed
from job.waiting import waiting

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# Where operations are deterministic, XLA does not try which form of a Triton product is fastest and
# takes one that can be 20 times slower than cuBLAS' choice: LeNet5 at batch 32 on an H200, 1,189 µs
# a step against 248. Trying them takes 8 s more at the start.
TRITON = "--xla_gpu_enable_triton_gemm"

# Keras imports these if it finds them, for wrappers and pictures that nothing here uses: a third of
# the time of importing TensorFlow and Keras.
NOT_FOR_KERAS = ("matplotlib", "pandas", "sklearn")


def import_tensorflow(*, verbose: bool = False) -> None:
    """Imports TensorFlow and Keras, which takes seconds, and touches no device.

    A process can do it before it knows which GPU it will get, and `start_tensorflow` afterwards.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if "tensorflow" in sys.modules and ONEDNN not in os.environ:
        log.warning(
            "TensorFlow was imported before its settings were made: without oneDNN, which is off "
            "by default on some processors, it is slower there and rounds otherwise, so that a run "
            "does not end with the same bits; import it after this package starts it"
        )
    os.environ.setdefault(ONEDNN, "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")
    flags = os.environ.get("XLA_FLAGS", "")
    # Anything else is the name of a file with flags.
    if TRITON not in flags and (not flags.strip() or flags.lstrip().startswith("-")):
        os.environ["XLA_FLAGS"] = f"{TRITON}=false {flags}".strip()
    # Before its logger is set up, TensorFlow's C++ side writes to stderr whatever the level.
    quiet = contextlib.nullcontext() if verbose else stderr_held_back()
    accelerator.open_libraries()
    own = sys.stderr
    with quiet, hidden(*NOT_FOR_KERAS):
        import tensorflow as tf  # noqa: I001  its C++ side before Keras
        import keras  # noqa: F401

        # What stands in for stderr now is closed afterwards.
        for handler in tf.get_logger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(own)
    if not verbose:
        tf.get_logger().setLevel(logging.ERROR)


@contextlib.contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Lets packages that are not imported yet look as if they were not installed.

    https://docs.python.org/3/reference/import.html#the-module-cache
    """
    absent = [name for name in packages if name not in sys.modules]
    # Typeshed does not know of None, which stands for such a package.
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@waiting("TensorFlow to start")
def start_tensorflow(
    *,
    verbose: bool = False,
    threads: int | None = None,
    gpus: float | None = None,
    device: str = "auto",
    deterministic: bool = True,
    in_one: bool = False,
) -> str:
    """Imports and configures TensorFlow and Keras. Call it before anything else imports them.

    Args:
        verbose: Let the frameworks log.
        threads: Threads for computing; the processors available to this process by default.
        gpus: The share of a GPU that Ray gave this process, 0 for none; None without Ray.
        device: `gpu`, `cpu`, or `auto` for a GPU where one is to be expected.
        deterministic: Let a GPU compute the same bits every time.
        in_one: The model sees a worker's examples in one part, so that threads share the work of
            each operation instead.

    Returns:
        The kind of device that will train: `cpu` or `gpu`.

    Raises:
        NoGpuError: One is expected and TensorFlow finds none.
    """
    import_tensorflow(verbose=verbose)
    import keras
    import tensorflow as tf

    with contextlib.nullcontext() if verbose else stderr_held_back():
        found = tf.config.list_physical_devices("GPU")
    # With several, a strategy would make a replica on each, and count gradients as often.
    chosen = [] if device == "cpu" or gpus == 0 else found[:1]
    if not chosen and accelerator.is_expected(device, gpus):
        raise accelerator.missing()
    with contextlib.nullcontext() if verbose else stderr_held_back():
        tf.config.set_visible_devices(chosen, "GPU")
        threads = threads or processors()
        share_operations(threads if chosen or in_one else 1)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
        if chosen and deterministic:
            tf.config.experimental.enable_op_determinism()
    # A user's keras.json must not change what a model computes.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    return "gpu" if chosen else "cpu"


def share_operations(threads: int) -> None:
    """Lets so many threads share each operation; a process that has computed keeps its number."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        log.warning(
            "this process has computed before, with another number of threads for an operation; it "
            "keeps that: a new process would be faster, or round its sums otherwise"
        )


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may use: a container's quota of their time counts, rounded up.

    Args:
        root: Where `proc` and `sys` are.
    """
    bound = len(os.sched_getaffinity(0))
    return min([bound, *(max(1, math.ceil(share)) for share in _quotas(root))])


def _quotas(root: Path) -> Iterator[float]:
    """The shares of processors that this process' control groups have, and those above them.

    Linux' documentation: `cgroup-v2` (cpu.max), and `scheduler/sched-bwc` for version 1.
    """
    with contextlib.suppress(FileNotFoundError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            folder = top / path.strip("/")
            # A container sees its own group at the top, under whatever path it has outside.
            for group in (folder, *folder.parents)[: len(folder.relative_to(top).parts) + 1]:
                yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    both = [group / "cpu.max"], [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
    for files in both:
        if all(file.exists() for file in files):
            quota, period = " ".join(file.read_text() for file in files).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)


def start_anywhere(*, verbose: bool = False) -> str:
    """As `start_tensorflow`, for seconds of work: without an expected GPU it warns and goes on."""
    try:
        return start_tensorflow(verbose=verbose)
    except NoGpuError as missing:
        log.warning("%s; processors compute", missing.reason)
        return start_tensorflow(verbose=verbose, device="cpu")


@contextlib.contextmanager
def stderr_held_back() -> Iterator[None]:
    """Holds back what libraries write to file descriptor 2, and shows it if the block fails.

    It is shown too where the process dies in the block: a C++ library that aborts says why there.
    Python's own `sys.stderr` goes on: a message to the user must not get lost.
    """
    own = sys.stderr
    own.flush()
    kept = os.dup(2)
    with (
        tempfile.TemporaryFile() as held,
        os.fdopen(os.dup(2), "w", buffering=1) as direct,
        _shown_on_death(held.fileno()),
    ):
        os.dup2(held.fileno(), 2)
        sys.stderr = direct
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr = own
            os.dup2(kept, 2)
            os.close(kept)


# Hears nothing from a process that has died.
_MOURN = """
import os, sys
held = int(sys.argv[1])
if not sys.stdin.buffer.read():
    os.write(2, os.pread(held, os.fstat(held).st_size, 0))
"""


@contextlib.contextmanager
def _shown_on_death(held: int) -> Iterator[None]:
    """Has another process write what an open file holds to stderr, should this one die meanwhile.

    No handler of a signal would do: after an abort it can trust nothing, and a kill calls none.
    """
    watching = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _MOURN, str(held)],
        stdin=subprocess.PIPE,
        pass_fds=[held],
        # What ends this process' group must not end it.
        start_new_session=True,
    )
    try:
        yield
    finally:
        watching.communicate(b"alive")


def lanes(noted: int | None = None) -> int:
    """Parts of a batch to compute at once: 1 on a GPU.

    On a CPU those that a run has noted, or `start_tensorflow`'s threads.
    """
    import tensorflow as tf

    if has_gpu():
        return 1
    return noted or max(1, tf.config.threading.get_inter_op_parallelism_threads())


def has_gpu() -> bool:
    """Whether TensorFlow, which has been started, computes on a GPU."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def idle_gpus() -> int:
    """How many GPUs this process found and leaves alone."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU")) - has_gpu()


def distribution(world: int, gpus: float | None = 1.0) -> tf.distribute.Strategy | None:
    """The strategy of one of `world` workers; none for a single one.

    Call it before any other TensorFlow operation. Where the workers are is read from `TF_CONFIG`.

    Gradients are packed into one message: with 10 arrays of 1.2 MB in all, latency decides. NCCL
    joins whole GPUs. A ring joins processors, and workers with a fraction of a GPU: NCCL refuses
    two of them on one.

    Args:
        world: How many workers there are.
        gpus: The share of a GPU that each of them has.
    """
    if world == 1:
        return None
    import tensorflow as tf

    communication = tf.distribute.experimental.CommunicationImplementation
    with stderr_held_back():
        return tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=tf.distribute.experimental.CommunicationOptions(
                implementation=communication.NCCL
                if has_gpu() and gpus == 1
                else communication.RING,
            )
        )


def hardware(kind: str, threads: int | None = None) -> str:
    """What trains, with its kind, for a run's record."""
    return f"{kind} ({device_name(kind, threads)})"


def device_name(kind: str, threads: int | None = None) -> str:
    """What trains, for the record: the GPU's name, or the processor's and the number of threads."""
    if kind == "gpu":
        import tensorflow as tf

        [gpu] = tf.config.get_visible_devices("GPU")
        return tf.config.experimental.get_device_details(gpu).get("device_name", "unknown GPU")
    threads = threads or processors()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def compute_capability() -> tuple[int, int] | None:
    """That of the GPU that computes; None where processors do, or where it is not known."""
    import tensorflow as tf

    for gpu in tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("compute_capability")
    return None


def accelerator_record() -> dict[str, Any] | None:
    """What a GPU's bits depend on beside its name.

    The driver, CUDA's runtime, cuDNN and NCCL, as the installed wheels name their versions, and
    the compute capability. None stands for what is not known, where libraries come from elsewhere,
    and for all where processors compute.
    """
    if not has_gpu():
        return None
    capability = compute_capability()
    return {
        "driver": accelerator.driver_version(),
        **{name: installed(wheel) for name, wheel in CUDA_WHEELS.items()},
        "compute_capability": capability and ".".join(map(str, capability)),
    }


def has_avx512() -> bool:
    """Whether the processor computes with vectors of 512 bits, as far as Linux tells."""
    return "avx512f" in _about_processor().get("flags", "").split()


def _processor() -> str:
    """The name, and the widest vectors: clouds give processors of several generations one name."""
    told = _about_processor()
    name = told.get("model name") or platform.processor() or platform.machine()
    flags = told.get("flags", "").split()
    widest = {"avx512f": " with AVX-512", "avx2": " with AVX2"}
    return name + next((shown for flag, shown in widest.items() if flag in flags), "")


def _about_processor() -> dict[str, str]:
    """What Linux says of one of the processors."""
    try:
        with open("/proc/cpuinfo") as stream:
            pairs = (line.split(":", 1) for line in stream if ":" in line)
            return {name.strip(): value.strip() for name, value in pairs}
    except FileNotFoundError:
        return {}
