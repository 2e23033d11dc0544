"""Golden loss curves: the first steps of each model with the notebook's recipe and seed 1.

They move when initial weights, example order, dropout, loss or optimizer change, which changes the
meaning of every checkpoint. If that is wanted, write the new values down:

    python -m tests.test_engine.test_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from job.config.resolve import resolve
from job.data.catalogue import CATALOGUE
from job.data.sources import obtain
from job.data.splits import training_splits
from job.engine.runtime import start_tensorflow

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 20
MODELS = ("lenet5", "ffnn")


def losses(model: str) -> list[float]:
    """Mean training loss of each of the first steps."""
    start_tensorflow()
    from job.engine.device_split import DeviceSplit
    from job.engine.engine import Engine
    from job.engine.randomness import batches, example_order

    config = resolve({"model": model, "recipe": "notebook"})
    train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"])
    rows = batches(example_order(config.seed, 0, len(train)), config.batch_size)
    engine = Engine(config, total_steps=len(rows))
    metrics = engine.train_span(DeviceSplit.load(train), rows[:STEPS], 0)
    return (metrics.loss_sum / config.batch_size).tolist()


@pytest.mark.parametrize("model", MODELS)
def test_golden_loss_curve(model, mnist):
    # Other processors round otherwise; another example or mask changes the second digit.
    np.testing.assert_allclose(losses(model), json.loads(GOLDEN.read_text())[model], rtol=1e-3)


if __name__ == "__main__":
    curves = {model: [round(loss, 6) for loss in losses(model)] for model in MODELS}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n")
