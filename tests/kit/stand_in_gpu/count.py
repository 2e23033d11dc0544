"""Counts what a training step does on a stand-in GPU; a test runs this in a process that has one.

    python count.py '[[SETTINGS, ROWS], ...]'

SETTINGS are those of `job.config.resolve.resolve`, ROWS the size of the data set. Prints a line of
JSON for each: the device's name; per step the kernels that touch the GPU's memory, and copies and
bytes to the GPU and from it; and of what is copied the kinds, with their copies and bytes of all
steps.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from typing import Any

import numpy as np

from job.config.config import TrainConfig
from job.config.resolve import resolve
from job.engine.runtime import device_name, start_tensorflow

# In one span, among which is divided what a span costs once: spans of a run are longer.
STEPS = 10

# Number and bytes.
Tallies = dict[str, tuple[int, int]]


def counted(config: TrainConfig, rows: int) -> dict[str, Tallies]:
    """The counts of a span that follows another one, so that nothing is compiled any more."""
    from job.data.catalogue import CATALOGUE
    from job.data.files import Split
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    shape = CATALOGUE[config.dataset].image_shape
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows, *shape), dtype=np.uint8)
    labels = rng.integers(0, 10, rows).astype(np.int32)
    engine = Engine(config, total_steps=2 * STEPS, image_shape=shape)
    data = DeviceSplit.load(Split(images, labels))
    order = batches(example_order(config.seed, 0, rows), config.batch_size)
    span = np.resize(order, (STEPS, config.batch_size))
    engine.train_span(data, span, 0)
    stand_in = ctypes.CDLL(os.environ["TF_PLUGGABLE_DEVICE_LIBRARY_PATH"])
    stand_in.stand_in_gpu_reset()
    engine.train_span(data, span, STEPS)
    with tempfile.NamedTemporaryFile() as file:
        stand_in.stand_in_gpu_write(file.name.encode())
        return json.load(file)


def per_step(tallies: Tallies) -> tuple[float, float]:
    """Their number and their bytes."""
    return tuple(sum(column) / STEPS for column in zip((0, 0), *tallies.values(), strict=True))


def summary(found: dict[str, Tallies]) -> dict[str, Any]:
    kernels, _ = per_step(found["kernels"])
    told: dict[str, Any] = {"kernels": kernels}
    for way in ("to_gpu", "from_gpu"):
        copies, size = per_step(found[way])
        told[way] = {"copies": copies, "bytes": size, "of": found[way]}
    return told


def main() -> None:
    kind = start_tensorflow(threads=2)
    for settings, rows in json.loads(sys.argv[1]):
        told = {"device": device_name(kind), **summary(counted(resolve(settings), rows))}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
