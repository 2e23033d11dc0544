"""The two models, layer by layer as the notebook has them."""

from __future__ import annotations

import numpy as np
import pytest

from job.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402

from job.models import MODELS, build_model  # noqa: E402

LENET5 = [
    ("CONV1", "Conv2D", "relu", (24, 24, 6), 156),
    ("POOL1", "AveragePooling2D", None, (23, 23, 6), 0),
    ("CONV2", "Conv2D", "tanh", (19, 19, 16), 2_416),
    ("POOL2", "AveragePooling2D", None, (9, 9, 16), 0),
    ("CONV3", "Conv2D", "tanh", (5, 5, 120), 48_120),
    ("FLAT", "Flatten", None, (3_000,), 0),
    ("FC6", "Dense", "tanh", (84,), 252_084),
    ("FC7", "Dense", "softmax", (10,), 850),
]
FFNN = [
    ("FLAT", "Flatten", None, (784,), 0),
    ("FC1", "Dense", "relu", (512,), 401_920),
    ("DROP1", "Dropout", None, (512,), 0),
    ("FC2", "Dense", "relu", (512,), 262_656),
    ("DROP2", "Dropout", None, (512,), 0),
    ("FC3", "Dense", "softmax", (10,), 5_130),
]


@pytest.mark.parametrize(
    ("name", "layers", "parameters"), [("lenet5", LENET5, 303_626), ("ffnn", FFNN, 669_706)]
)
def test_layers(name, layers, parameters):
    model = build_model(name)
    found = [
        (
            layer.name,
            type(layer).__name__,
            layer.activation.__name__ if hasattr(layer, "activation") else None,
            tuple(layer.output.shape[1:]),
            layer.count_params(),
        )
        for layer in model.layers
    ]
    assert found == layers
    assert model.count_params() == parameters
    assert all(layer.rate == 0.2 for layer in model.layers if "DROP" in layer.name)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_a_function_of_the_seed(name):
    first, again, other = (build_model(name, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_computes_in_bfloat16_and_answers_in_float32(name):
    model = build_model(name, precision="mixed_bfloat16")
    assert model.layers[-1].compute_dtype == "float32"
    weighted = [layer for layer in model.layers[:-1] if layer.weights]
    assert {layer.compute_dtype for layer in weighted} == {"bfloat16"}
    assert {str(v.dtype) for v in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32", "the global policy was left changed"


def test_models_command_prints_the_tables(lenet, tmp_path):
    done = lenet("models", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    for name, parameters in (("lenet5", "303,626"), ("ffnn", "669,706")):
        assert f"{name}: {parameters} parameters" in done.stdout
    for layer, kind, *_ in LENET5 + FFNN:
        assert any(layer in line and kind in line for line in done.stdout.splitlines())
