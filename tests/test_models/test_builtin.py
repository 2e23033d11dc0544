"""The models, layer by layer as the notebook has them, or the paper."""

from __future__ import annotations

import numpy as np
import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402

from job.data.files import check_image_shape  # noqa: E402
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


# A quarter of the paper's 96, 256, 384, 384, 256 maps and 4,096 units.
ALEXNET = [
    ("CONV1", "Conv2D", "relu", (28, 28, 24), 624),
    ("POOL1", "MaxPooling2D", None, (13, 13, 24), 0),
    ("CONV2", "Conv2D", "relu", (13, 13, 64), 38_464),
    ("POOL2", "MaxPooling2D", None, (6, 6, 64), 0),
    ("CONV3", "Conv2D", "relu", (6, 6, 96), 55_392),
    ("CONV4", "Conv2D", "relu", (6, 6, 96), 83_040),
    ("CONV5", "Conv2D", "relu", (6, 6, 64), 55_360),
    ("POOL5", "MaxPooling2D", None, (2, 2, 64), 0),
    ("FLAT", "Flatten", None, (256,), 0),
    ("FC6", "Dense", "relu", (1_024,), 263_168),
    ("DROP6", "Dropout", None, (1_024,), 0),
    ("FC7", "Dense", "relu", (1_024,), 1_049_600),
    ("DROP7", "Dropout", None, (1_024,), 0),
    ("FC8", "Dense", "softmax", (10,), 10_250),
]
PARAMETERS = {
    # Of 28×28 gray images, and of 32×32 in colour.
    "lenet5": (303_626, 545_846),
    "ffnn": (669_706, 1_841_162),
    "alexnet": (1_555_898, 1_884_778),
}


@pytest.mark.parametrize(
    ("name", "layers", "dropout"),
    [("lenet5", LENET5, set()), ("ffnn", FFNN, {0.2}), ("alexnet", ALEXNET, {0.5})],
)
def test_layers(name, layers, dropout):
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
    assert model.count_params() == PARAMETERS[name][0]
    assert {layer.rate for layer in model.layers if "DROP" in layer.name} == dropout


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_that_the_docstrings_state(name):
    gray, colour = PARAMETERS[name]
    assert f"{gray:,} parameters" in " ".join(MODELS[name].__doc__.split())
    model = build_model(name, image_shape=(32, 32, 3))
    assert model.input_shape == (None, 32, 32, 3)
    assert model.count_params() == colour
    if name == "alexnet":
        assert f"{colour:,} with 32×32 in colour" in " ".join(MODELS[name].__doc__.split())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("image_shape", [(20, 20, 1), (128, 128, 3)])
def test_models_take_every_shape_that_a_data_set_may_have(name, image_shape):
    assert check_image_shape(image_shape) == image_shape
    assert build_model(name, image_shape=image_shape).output_shape == (None, 10)


def test_alexnet_pools_with_overlap_and_keeps_the_size_of_its_maps_until_then():
    model = build_model("alexnet")
    pools = [layer for layer in model.layers if "POOL" in layer.name]
    assert {(layer.pool_size, layer.strides) for layer in pools} == {((3, 3), (2, 2))}
    kernels = [layer.kernel_size for layer in model.layers if "CONV" in layer.name]
    assert kernels == [(5, 5), (5, 5), (3, 3), (3, 3), (3, 3)]


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
    for name, (parameters, _) in PARAMETERS.items():
        assert f"{name}: {parameters:,} parameters" in done.stdout
    for layer, kind, *_ in LENET5 + FFNN + ALEXNET:
        assert any(layer in line and kind in line for line in done.stdout.splitlines())
