"""What one training step does on a GPU, counted on a stand-in: how many kernels it launches, and
that nothing of weight crosses the bus."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from job.config.resolve import resolve
from tests.kit.commands import environment
from tests.kit.stand_in import COUNT, NAME, StandIn

AUGMENTED = {"augment_shift": 4, "augment_flip": "horizontal"}
# Only photographs may be mirrored.
FASHION = {"recipe": "quick", "dataset": "fashion-mnist"}
ALEXNET = {"recipe": "quick", "model": "alexnet", "dataset": "cifar10"}
# Settings, and rows: what is copied at a step must not depend on how many there are.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "notebook": ({"recipe": "notebook"}, 1_000),
    "notebook, many rows": ({"recipe": "notebook"}, 8_000),
    "quick": ({"recipe": "quick"}, 1_000),
    "quick-1": ({"recipe": "quick-1"}, 1_000),
    "quick, many rows": ({"recipe": "quick"}, 8_000),
    "lenet5, augmented": ({**FASHION, **AUGMENTED}, 1_000),
    "best": ({"recipe": "best"}, 1_000),
    "best, muon": ({"recipe": "best", "optimizer": "muon"}, 1_000),
    "ffnn": ({**FASHION, "model": "ffnn"}, 1_000),
    "ffnn, augmented": ({**FASHION, "model": "ffnn", **AUGMENTED}, 1_000),
    "alexnet": ({**ALEXNET, "augment_shift": 0, "augment_flip": "none"}, 200),
    "alexnet, augmented": ({**ALEXNET, **AUGMENTED}, 200),
}


@pytest.fixture(scope="module")
def counts(stand_in_gpu: StandIn) -> dict[str, dict[str, Any]]:
    """The counts per step of every case, all made in one process."""
    done = subprocess.run(
        [sys.executable, COUNT, json.dumps(list(CASES.values()))],
        env=environment(**stand_in_gpu.env()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["device"] for one in found} == {NAME}
    return dict(zip(CASES, found, strict=True))


# Muon's iteration is of many small products. XLA, the default of one GPU, fuses what lies between.
@pytest.mark.parametrize(("recipe", "most"), [("notebook", 160), ("quick-1", 200), ("quick", 620)])
def test_how_many_kernels_a_step_launches(recipe, most, counts):
    """As many as TensorFlow runs on the device, control flow and reading of variables among them:
    5 to 7 µs each of the thread that launches them, which is what limits so small a model."""
    assert counts[recipe]["kernels"] <= most


@pytest.mark.parametrize("case", CASES)
def test_next_to_nothing_comes_from_the_gpu(case, counts):
    """Each copy also waits until the GPU has caught up."""
    copied = counts[case]["from_gpu"]
    assert copied["copies"] <= 2, copied["of"]
    assert copied["bytes"] <= 1_000, copied["of"]


@pytest.mark.parametrize("case", CASES)
def test_only_which_examples_to_take_goes_to_the_gpu(case, counts):
    batch = resolve(CASES[case][0]).batch_size
    copied = counts[case]["to_gpu"]
    assert copied["bytes"] <= 4_000 + 8 * batch, copied["of"]


@pytest.mark.parametrize("recipe", ["notebook", "quick"])
def test_what_is_copied_does_not_depend_on_the_size_of_the_data_set(recipe, counts):
    few, many = counts[recipe], counts[f"{recipe}, many rows"]
    for way in ("to_gpu", "from_gpu"):
        # TensorFlow keeps a scalar that it has copied before.
        assert few[way]["bytes"] == pytest.approx(many[way]["bytes"], abs=8)
