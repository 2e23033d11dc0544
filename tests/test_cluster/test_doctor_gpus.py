"""What `lenet doctor` says of GPUs, from what machines with them would tell, and this one."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cluster.doctor import checks
from cluster.doctor.findings import FAIL, OK, WARN
from cluster.doctor.gpus import Gpus, allowed, computes_on, gpus
from cluster.doctor.machines import ThisMachine
from job.engine.accelerator import cards, driver_version, greatest_capability, has_device
from tests.kit.doctor_lines import only


def machine_with(count: int, capability: tuple[int, int] = (8, 0), **others: Any) -> Gpus:
    """What a machine tells whose GPUs are all seen."""
    usual = {
        "there": count,
        "allowed": count,
        "seen": (("NVIDIA A100", capability),) * count,
        "driver": "535.86.10",
        "is_divided": False,
    }
    return Gpus(**{**usual, **others})


def test_gpus_that_are_not_seen():
    none, two = machine_with(0, driver=None), machine_with(2)
    only(checks.gpus({"a": none, "b": none}, {"a": 0.0, "b": 0.0}), OK, "none; processors train")
    found = only(checks.gpus({"a": two}, {"a": 2.0}), OK, "2, seen by TensorFlow and Ray")
    assert found.figures == {"a": 2}
    assert "NVIDIA A100 (compute capability 8.0), driver 535.86.10" in found.text
    only(checks.gpus({"this machine": two}, {}), OK, "2, seen by TensorFlow: NVIDIA A100")
    blind = machine_with(2, seen=(), problem="TensorFlow finds no GPU (Cannot dlopen ...)")
    only(checks.gpus({"a": blind}, {"a": 2.0}), FAIL, "Cannot dlopen", "--device cpu does without")
    only(checks.gpus({"a": blind}, {"a": 2.0}, "cpu"), OK, "processors train (--device cpu)")
    only(checks.gpus({"a": machine_with(1)}, {"a": 4.0}), FAIL, "Ray has 4 to give", "--num-gpus")
    only(checks.gpus({"a": two}, {"a": 1.0}), WARN, "Ray has 1 of 2")
    only(checks.gpus({"a": machine_with(1, there=2, allowed=2)}, {}), WARN, "sees 1 of 2")
    # Ray's default of before 2.5x: who has none of its GPUs sees none.
    hidden = machine_with(0, there=2)
    only(checks.gpus({"a": hidden}, {"a": 2.0}), WARN, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")


def test_drivers_that_are_too_old_for_a_gpu():
    only(checks.gpus({"a": machine_with(1, (9, 0))}, {}), FAIL, "535.86.10 is older than 555")
    only(checks.gpus({"a": machine_with(1, (9, 0), driver="570.86.15")}, {}), OK)
    only(checks.gpus({"a": machine_with(1, driver="510.47.03")}, {}), FAIL, "older than 525")
    only(checks.gpus({"a": machine_with(1, driver=None)}, {}), OK, "driver unknown")


def test_a_gpu_that_is_divided():
    divided = machine_with(1, there=2, is_divided=True)
    only(checks.gpus({"a": divided}, {"a": 1.0}), WARN, "MIG is on", "docs/gpu.md")


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Makes a tool of the driver's that answers what it is given."""

    def answers(lines: str, code: int = 0) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ncat << 'END'\n{lines}END\nexit {code}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return answers


def test_what_the_drivers_tool_lists(nvidia_smi):
    nvidia_smi(
        "NVIDIA H100 80GB HBM3, 570.86.15, 9.0, Enabled\nTesla V100, 570.86.15, 7.0, [N/A]\n"
    )
    hopper, volta = cards()
    assert greatest_capability() == (9, 0)
    assert (hopper.name, hopper.driver, hopper.capability) == (
        *("NVIDIA H100 80GB HBM3", "570.86.15", (9, 0)),
    )
    assert hopper.is_divided
    assert not volta.is_divided
    nvidia_smi("NVIDIA A100, 535.86.10, [N/A], Disabled\n")
    assert cards()[0].capability is None
    assert greatest_capability() is None
    nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    assert cards() is None


def test_a_machine_without_the_drivers_tool(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cards() is None


@pytest.mark.parametrize(
    ("visible", "there", "count"),
    [
        (None, 4, 4),
        ("", 4, 0),
        ("-1", 4, 0),
        ("1", 4, 1),
        ("0, 2", 4, 2),
        # CUDA reads no further.
        ("0,7,1", 4, 1),
        ("GPU-8932f937,GPU-1c2d", 4, 2),
        ("0,1", 0, 0),
    ],
)
def test_only_gpus_that_a_process_may_see_are_missed(visible, there, count):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert allowed(there, is_divided=False, environ=environ) == count
    assert allowed(there, is_divided=True, environ=environ) == min(1, count)


@pytest.mark.skipif(has_device(), reason="here is a GPU")
def test_what_a_machine_without_gpus_tells():
    with ThisMachine(60.0) as machine:
        asked = dict.fromkeys(machine.names, ("auto",))
        assert machine.ask("GPUs", gpus, asked) == {
            "this machine": machine_with(0, driver=driver_version())
        }
        assert machine.ask("all-reduce", computes_on, machine.everyone()) == {"this machine": "cpu"}
        wanted = machine.ask("GPUs", gpus, dict.fromkeys(machine.names, ("gpu",)))
    only(checks.gpus(wanted, {}, "gpu"), FAIL, "TensorFlow finds no GPU (failed call to cuInit")
