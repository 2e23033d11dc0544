"""What a model has to compute, told without Keras, is what Keras' layers have."""

from __future__ import annotations

import math

import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow(device="cpu")

import keras  # noqa: E402
from keras import layers  # noqa: E402

from job.config.resolve import resolve  # noqa: E402
from job.data.catalogue import CATALOGUE  # noqa: E402
from job.models import MODELS, build_model  # noqa: E402
from job.models.architecture import Architecture  # noqa: E402
from job.models.work import lanes_for, multiplications  # noqa: E402
from job.runs.run import prepare_run  # noqa: E402


def counted(model: keras.Model) -> int:
    """By the layers' own kernels and outputs."""
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in model.layers
        if hasattr(layer, "kernel")
    )


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 33, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_built_in_models(name, shape):
    model = build_model(name, image_shape=shape, classes=7)
    assert multiplications(name, shape, 7) == counted(model)
    own = Architecture(model.to_json())
    assert multiplications("own.py:net", shape, 7, own) == counted(model)


def net(*own: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((20, 17, 4)), *own, layers.Flatten(), layers.Dense(3)])


@pytest.mark.parametrize(
    "convolution",
    [
        layers.Conv2D(6, (3, 2), strides=2),
        layers.Conv2D(6, 3, strides=(2, 3), padding="same"),
        layers.Conv2D(6, 3, groups=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2),
    ],
)
def test_convolutions_of_ones_own(convolution):
    model = net(layers.Rescaling(2.0), convolution, layers.MaxPooling2D(2))
    places = math.prod(convolution.output.shape[1:3])
    expected = places * math.prod(convolution.kernel.shape) + 3 * model.layers[-2].output.shape[-1]
    assert multiplications("own.py:net", (20, 17, 4), 3, Architecture(model.to_json())) == expected


def test_layers_that_are_not_known_are_not_guessed():
    for unknown in (layers.Conv2DTranspose(2, 3), net()):
        document = keras.Sequential([keras.Input((20, 17, 4)), unknown]).to_json()
        assert multiplications("own.py:net", (20, 17, 4), 3, Architecture(document)) is None
    assert lanes_for(16, 32, None) == 16


@pytest.mark.parametrize(
    ("model", "batch", "threads", "expected"),
    [
        ("lenet5", 32, 2, 2),
        ("lenet5", 32, 16, 3),
        ("lenet5", 128, 16, 13),
        ("lenet5", 512, 64, 55),
        # Where two lanes are slower than one.
        ("ffnn", 32, 2, 1),
        ("ffnn", 128, 2, 2),
        ("ffnn", 128, 16, 3),
        ("alexnet", 32, 16, 16),
    ],
)
def test_a_lane_has_to_be_worth_its_price(model, batch, threads, expected, tmp_path):
    assert lanes_for(threads, batch, multiplications(model, (28, 28, 1), 10)) == expected
    settings = {"model": model, "batch_size": batch, "storage": str(tmp_path), "name": "r"}
    run = prepare_run(settings)
    assert run.with_lanes(threads, CATALOGUE["mnist"]).config.lanes == expected


def test_workers_share_a_batch(tmp_path):
    """Each of two has sixteen of its images; an elastic run is divided for its most workers."""
    for workers in ("2", "1:2"):
        settings = {"batch_size": 32, "workers": workers, "storage": str(tmp_path), "name": "r"}
        assert prepare_run(settings).with_lanes(8, CATALOGUE["mnist"]).config.lanes == 1
    assert resolve({"batch_size": 32}).lanes is None
