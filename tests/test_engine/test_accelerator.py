"""GPUs on machines without one: what is expected of them, and what TensorFlow is helped with."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.engine import accelerator, runtime
from job.engine.accelerator import driver_problem, is_expected, likely_causes, said_of_gpus
from job.errors import NoGpuError
from tests.kit.gpu_libraries import framework, runpath

ROOT = Path(__file__).parents[2]
LIBRARIES = [sys.executable, "tests/kit/gpu_libraries.py"]
# Of the driver, and what no run uses.
NOT_IN_WHEELS = ("cuda", "nvidia-ml", "nvinfer", "nvinfer_plugin", "nvshmem_host")
# The folder of a library's wheel, where it has another name.
FOLDERS = {"cublasLt": "cublas", "cudart": "cuda_runtime", "cupti": "cuda_cupti"}


@pytest.fixture(scope="module")
def opened() -> dict[str, str]:
    """What TensorFlow's loader opens, by its name without `lib` and version, as the dynamic linker
    tells it."""
    environ = {**os.environ, "LD_DEBUG": "libs", "PYTHONPATH": str(ROOT)}
    told = subprocess.run(LIBRARIES, cwd=ROOT, env=environ, capture_output=True, text=True)
    found = re.findall(r"find library=(lib((?:cu|nccl|nv)[\w-]*)\.so\.\d+) ", told.stderr)
    return {name: soname for soname, name in found if name not in NOT_IN_WHEELS}


def unreachable(names, runpath, by_path):
    """Libraries whose wheels are in no folder where they are looked for."""
    return {name for name in names if FOLDERS.get(name, name) not in {*runpath, *by_path}}


def test_every_library_that_tensorflow_opens_is_where_it_looks_or_opened_by_us(opened):
    folders = runpath(framework())

    assert {"cudart", "cublas", "cudnn", "cufft", "cusolver", "cusparse", "nccl"} <= opened.keys()
    assert unreachable(opened, folders, accelerator.OPENED_BY_PATH) == set()
    # It would be noticed.
    assert unreachable(opened, folders, ()) == {"cusolver"}
    assert unreachable(opened, folders - {"nccl"}, accelerator.OPENED_BY_PATH) == {"nccl"}


@pytest.fixture
def wheels(tmp_path, opened) -> Path:
    """A copy of TensorFlow, in links, with empty libraries where NVIDIA's wheels have theirs."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("empty libraries need a C compiler")
    subprocess.run(["cp", "-rs", framework().parent, tmp_path], check=True)
    for name, soname in opened.items():
        folder = tmp_path / "nvidia" / FOLDERS.get(name, name) / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-shared", f"-Wl,-soname,{soname}", "-x", "c", os.devnull]
        subprocess.run([*command, "-o", folder / soname], check=True)
    return tmp_path


def test_tensorflow_finds_all_that_a_gpu_needs(wheels, opened):
    environ = {**os.environ, "PYTHONPATH": f"{wheels}{os.pathsep}{ROOT}"}

    told = subprocess.run(LIBRARIES, cwd=ROOT, env=environ, capture_output=True, text=True)

    answers = dict(line.split(": ") for line in told.stdout.splitlines())
    assert answers["Cusolver"] == "found", told.stderr
    assert answers["all that a GPU needs"] == "found"
    assert {name for name, answer in answers.items() if answer == "missing"} <= {
        *("CudaDriver", "Nvml", "NvInfer", "NvInferPlugin", "Nvshmem")
    }


@pytest.fixture
def machine(tmp_path) -> Path:
    """A folder above `dev` and `proc`, with one GPU."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    (tmp_path / "dev" / "nvidiactl").touch()
    with_driver(tmp_path, "570.86.15")
    return tmp_path


def with_driver(machine: Path, version: str) -> None:
    told = machine / "proc/driver/nvidia/version"
    told.parent.mkdir(parents=True, exist_ok=True)
    told.write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Jan 14 22:34:18 UTC 2025\n"
        "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n"
    )


@pytest.mark.parametrize(
    ("device", "share", "visible", "expected"),
    [
        ("auto", None, None, True),
        ("auto", None, "0,1", True),
        ("auto", None, "GPU-8932f937", True),
        ("auto", None, "MIG-0f1cb1c5", True),
        ("auto", None, "", False),
        ("auto", None, "-1", False),
        # Slurm's, for jobs without a GPU.
        ("auto", None, "NoDevFiles", False),
        ("auto", 0, None, False),
        ("auto", 0.5, "0", True),
        ("gpu", None, "", True),
        ("cpu", None, "0", False),
        ("cpu", 1.0, "0", False),
    ],
)
def test_a_gpu_is_expected_where_ray_gave_one_or_there_is_one(
    machine, device, share, visible, expected
):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert is_expected(device, share, environ, machine) is expected


def test_no_device_no_expectation(tmp_path):
    (tmp_path / "dev").mkdir()
    # A container that was given no GPU sees the host's driver, and these.
    (tmp_path / "dev" / "nvidiactl").touch()
    with_driver(tmp_path, "570.86.15")

    assert not is_expected("auto", None, {}, tmp_path)
    assert is_expected("gpu", None, {}, tmp_path)
    assert is_expected("auto", 1.0, {}, tmp_path)


def test_windows_has_its_own_driver(tmp_path):
    library = tmp_path / "usr/lib/wsl/lib/libcuda.so.1"
    library.parent.mkdir(parents=True)
    library.touch()

    assert is_expected("auto", None, {}, tmp_path)
    assert "driver" not in " ".join(likely_causes({}, tmp_path, "x86_64"))


def test_what_keeps_tensorflow_from_a_gpu_is_named(machine):
    def causes(**environ):
        return " / ".join(likely_causes(environ, machine, "x86_64", wheels=machine))

    assert "NVIDIA's libraries are not installed (cublas" in causes()
    assert "driver" not in causes()
    with_driver(machine, "470.256.02")
    assert "NVIDIA's driver 470.256.02 is older than 525" in causes()
    shutil.rmtree(machine / "proc")
    assert "NVIDIA's driver is not loaded" in causes()
    shutil.rmtree(machine / "dev")
    assert "there is no NVIDIA device" in causes()
    assert causes(CUDA_VISIBLE_DEVICES="-1") == "CUDA_VISIBLE_DEVICES='-1' hides all GPUs"
    assert "aarch64 is built without CUDA" in likely_causes({}, machine, "aarch64")[0]


@pytest.mark.parametrize(
    ("version", "capability", "problem"),
    [
        ("525.60.13", (7, 5), ""),
        ("570.86.15", (9, 0), ""),
        ("555.42.02", (9, 0), ""),
        ("515.105.01", None, "older than 525"),
        ("550.127.05", (9, 0), "older than 555, which TensorFlow needs for compute capability 9.0"),
        ("550.127.05", (8, 9), ""),
        ("550.127.05", (12, 0), "older than 555"),
    ],
)
def test_hopper_needs_a_newer_driver(version, capability, problem):
    assert problem in driver_problem(version, capability)
    assert bool(problem) is bool(driver_problem(version, capability))


def test_of_tensorflows_log_only_complaints_are_told():
    def logged(level, text):
        return f"{level}0000 00:00:1795656293.410114    5563 somewhere.cc:153] {text}\n"

    log = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        + logged("I", "oneDNN custom operations are on. You may see slightly different results.")
        + logged("I", "Could not find cuda drivers on your machine, GPU will not be used.")
    )
    grave = (
        logged("W", "Cannot dlopen some GPU libraries. Please make sure the missing libraries ...")
        + "Skipping registering GPU devices...\n"
        + logged("E", "failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)")
    )

    assert said_of_gpus("") == ""
    assert said_of_gpus(log) == "Could not find cuda drivers on your machine, GPU will not be used"
    assert said_of_gpus(log + grave) == (
        "Cannot dlopen some GPU libraries; "
        "failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)"
    )


@pytest.mark.skipif(accelerator.has_device(), reason="here is a GPU")
def test_tensorflow_says_why_it_finds_no_gpu():
    with pytest.raises(NoGpuError) as error:
        runtime.start_tensorflow(device="gpu")

    assert "cuInit" in str(error.value)
    assert str(error.value).endswith("; or compute on processors with --device cpu")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(accelerator.has_device(), reason="here is a GPU")
def test_a_worker_without_a_share_computes_on_processors():
    assert runtime.start_tensorflow(gpus=0) == "cpu"
    assert runtime.start_tensorflow(device="cpu") == "cpu"
    assert not runtime.has_gpu()
