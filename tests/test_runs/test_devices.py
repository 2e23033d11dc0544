"""What trained a run is noted from attempt to attempt, as far as it left traces in the weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from job.runs.run import Reached, Run, prepare_run
from job.runs.state import RunState
from job.training.attempt import reached_before
from job.training.progress import Silent
from job.versions import Device
from tests.kit.commands import result_of

PROCESSORS = ("cpu (AMD EPYC, 2 threads)", None)
HOPPER = {"driver": "570.86.15", "cuda": "12.9.79", "cudnn": "9.28.0.42", "nccl": "2.32.3"}
GPU = ("gpu (NVIDIA H100)", {**HOPPER, "compute_capability": "9.0"})


def attempt(run: Run, step: int, device: tuple, reached: int) -> Reached:
    """An attempt that begins at a step and reaches another one."""
    state = RunState(step=step, weights={}, optimizer={})
    notes = dataclasses.replace(reached_before(run, state, Silent(), *device), step=reached)
    run.note(notes)
    return notes


def entry(step: int, device: tuple) -> Device:
    return Device(from_step=step, device=device[0], accelerator=device[1])


def test_each_change_has_an_entry(tmp_path):
    run = prepare_run({"storage": str(tmp_path), "name": "r"})
    assert attempt(run, 0, GPU, 100).devices == (entry(0, GPU),)
    assert attempt(run, 80, GPU, 200).devices == (entry(0, GPU),)
    moved = (entry(0, GPU), entry(180, PROCESSORS))
    assert attempt(run, 180, PROCESSORS, 190).devices == moved
    assert run.reached().devices == moved
    # A newer driver computes other bits.
    newer = (GPU[0], {**GPU[1], "driver": "580.65.06"})
    assert attempt(run, 190, newer, 210).devices == (*moved, entry(190, newer))


def test_steps_that_are_trained_again_are_of_who_does_it(tmp_path):
    run = prepare_run({"storage": str(tmp_path), "name": "r"})
    attempt(run, 0, GPU, 100)
    attempt(run, 80, PROCESSORS, 120)
    assert attempt(run, 40, GPU, 130).devices == (entry(0, GPU),)
    assert attempt(run, 0, PROCESSORS, 10).devices == (entry(0, PROCESSORS),)


def test_of_a_run_of_before_only_the_rest_is_known(tmp_path):
    run = prepare_run({"storage": str(tmp_path), "name": "r"})
    document = {"step": 100, "restarts": 1, "lost_steps": 7}
    run.storage.write("reached.json", json.dumps(document).encode())
    assert run.reached() == Reached(**document)
    notes = attempt(run, 90, PROCESSORS, 150)
    assert notes.devices == (entry(90, PROCESSORS),)
    assert (notes.restarts, notes.lost_steps) == (2, 17)


def test_a_result_names_them(finished_run: Path):
    result = result_of(finished_run)
    assert result["devices"] == [
        {"from_step": 0, "device": result["device"], "accelerator": result["accelerator"]}
    ]
