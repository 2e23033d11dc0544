"""A user's own model: what can be trained, and in one line why another can't."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from job.errors import InputError  # noqa: E402
from job.models.architecture import (  # noqa: E402
    Architecture,
    ArchitectureError,
    check,
    in_float32,
    model_of,
)
from job.models.source import find_source, model_name  # noqa: E402
from job.training.building import Order, UnfitError, build, built_here  # noqa: E402

NETS = Path(__file__).parent / "nets.py"
SHAPE = (28, 28, 1)


def order(function: str, **more) -> Order:
    source = find_source(f"{NETS}:{function}")
    return Order(**{"source": source, "image_shape": SHAPE, "classes": 10, **more})


UNFIT = {
    "raises": r"classes=10 it raised NameError: name 'undefined' is not defined \(line \d+\)",
    "no_arguments": r"called with image_shape=\(28, 28, 1\), classes=10 it raised TypeError",
    "number": "returned an int; return a keras.Model",
    "nothing": "returned a NoneType; return a keras.Model",
    "NOT_A_FUNCTION": "the file has no function NOT_A_FUNCTION",
    "residua": "the file has no function residua; did you mean 'residual'",
    "too_narrow": "gives 9 for a picture, and there are 10 labels",
    "for_other_pictures": "takes 32×32×3, and the pictures are 28×28×1",
    "two_outputs": "has 1 inputs and 2 outputs",
    "two_inputs": "has 2 inputs and 1 outputs",
    "sigmoid": "its last layer is dense.*, a Dense with sigmoid: .* give --output",
    "with_lambda": "has a Lambda layer, which holds code",
    "local_class": "has a Local of .*, which is neither Keras' own nor defined at the top of",
    "forgetful": "computes something else when it is built again .* let get_config give all",
    "moody": r"gives other values each time .* draw from a keras\.random\.SeedGenerator",
    "gated": "gives for a picture depends on the others of a batch",
    "biased": "computes something else when it is built again .* let get_config give all",
    "own_class": "its model, a Net, has 1 inputs and 1 outputs; make a Sequential or Functional",
    "sparing": "calls add_loss, for which the rows that fill up a batch would count",
    "block": r"its layer block.* \(Block\) has weights that are not trained",
    "renamed": r"its layer renamed.* \(Renamed\) has weights that are not trained",
    "mixing": "gives for a picture depends on the others of a batch",
    "own_activation": "can't be built by Keras .*",
    "own_function": "has a cubed of builtins, which is neither Keras' own nor defined",
    "subclassed": "a Subclassed, has 0 inputs and 0 outputs; make a Sequential or Functional",
    "trained_before": "comes with weights of its own .* which would not be kept",
    "same_names": r"two of its arrays are called dense/\w+; give layers names of their own",
    "nothing_to_train": "its model has nothing to train",
}


@pytest.mark.parametrize("function", UNFIT)
def test_what_cannot_be_trained_is_named(function):
    with pytest.raises((UnfitError, ArchitectureError, InputError)) as refused:
        built_here(order(function))
    assert re.search(UNFIT[function], str(refused.value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("output", "function", "why"),
    [
        ("probabilities", "residual", "needs a model that ends in a softmax"),
        ("auto", "plain", "its probabilities are bfloat16"),
    ],
)
def test_an_end_that_does_not_go_with_the_settings(output, function, why):
    with pytest.raises(UnfitError, match=why):
        built_here(order(function, output=output, precision="mixed_bfloat16"))


def test_parts_of_the_users_own_need_the_file_again():
    asked = order("own_parts")
    architecture = built_here(asked)
    assert architecture.own_parts == ["Scale", "Shaken", "squared"]
    assert architecture.source == asked.source
    one, again = (model_of(architecture, 1).get_weights() for _ in range(2))
    assert all(map(np.array_equal, one, again))
    with pytest.raises(ArchitectureError, match="the file that defines it is not given"):
        model_of(dataclasses.replace(architecture, source=None), 1)
    other = dataclasses.replace(asked.source, text="def own_parts(): ...")
    with pytest.raises(ArchitectureError, match=r"nor defined at the top of .*nets\.py"):
        model_of(dataclasses.replace(architecture, source=other), 1)
    missing = dataclasses.replace(asked.source, text="import a_file_beside_it")
    with pytest.raises(ArchitectureError, match="the file must need no others of yours"):
        model_of(dataclasses.replace(architecture, source=missing), 1)


def test_a_registered_function_and_a_part_of_a_tensor_are_fine():
    architecture = built_here(order("registered"))
    assert architecture.own_parts == ["nets>cubed"]
    assert model_of(architecture, 1).count_params() == 28 * 8 + 8 + 8 * 10 + 10


def test_a_file_with_layers_that_needs_another_is_refused(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("SIZE = 8")
    (tmp_path / "net.py").write_text("from beside import SIZE\n" + NETS.read_text())
    monkeypatch.chdir(tmp_path)
    for function, is_fit in (("quiet", False), ("plain", True)):
        asked = Order(source=find_source(f"net:{function}"), image_shape=SHAPE, classes=10)
        if is_fit:
            build(asked)
        else:
            with pytest.raises(InputError, match=r"come with beside, another file of yours \("):
                build(asked)


def test_the_file_is_the_text_that_was_read_once(tmp_path):
    copy = tmp_path / "nets.py"
    copy.write_text(NETS.read_text())
    read = find_source(f"{copy}:own_parts")
    copy.unlink()
    asked = Order(source=read, image_shape=SHAPE, classes=10)
    assert build(asked) == dataclasses.replace(built_here(order("own_parts")), source=read)


def test_a_table_of_a_model_shows_all_its_layers(lenet, tmp_path):
    done = lenet(
        "models", f"{NETS}:residual", "--image-shape", "20x30x3", "--classes", 7, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "20 × 30 × 3" in done.stdout
    assert "20 × 30 × 8" in done.stdout
    assert "probabilities" in done.stdout


def test_a_linear_end_gets_a_softmax_and_a_softmax_stays():
    ours, theirs = (model_of(built_here(order(name)), 1) for name in ("residual", "plain"))
    images = np.random.default_rng(1).random((3, *SHAPE), np.float32)
    for model in (ours, theirs):
        np.testing.assert_allclose(model(images).numpy().sum(axis=1), 1, rtol=1e-5)
    assert ours.layers[-1].name == "probabilities"
    assert theirs.layers[-1].activation is keras.activations.softmax


def test_weights_are_a_function_of_architecture_and_seed():
    architecture = built_here(order("residual"))
    one, again, other = (model_of(architecture, seed).get_weights() for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, again))
    assert not all(map(np.array_equal, one, other))


def test_another_process_builds_it_and_whatever_it_does_stays_there(capfd):
    architecture = build(order("residual"))
    assert architecture == built_here(order("residual"))
    heard = capfd.readouterr()
    assert "says something" in heard.err
    with pytest.raises(InputError, match=r"ended the process that built it \(exit code 3\)"):
        build(order("ends_the_process"))


def test_a_model_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "nets" / "deep"
    package.mkdir(parents=True)
    (tmp_path / "nets" / "__init__.py").write_text("raise SystemExit('was imported')")
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text("def net(image_shape, classes): ...")
    monkeypatch.chdir(tmp_path)
    found = find_source("nets.deep.small:net")
    assert (found.name, found.module) == ("nets.deep.small:net", "nets.deep.small")
    assert Path(found.file) == package / "small.py"
    (package / "small.py").write_text("def net(image_shape, classes): ....")
    assert find_source("nets.deep.small:net").sha256 != found.sha256


@pytest.mark.parametrize(
    "model", ["nowhere.py:net", "nowhere.at.all:net", "job:net.py", "a folder.py/net.py:f"]
)
def test_a_file_that_is_not_there(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--model"):
        find_source(model)


def test_names_of_models():
    for good in ("lenet5", "net.py:f", "../a b/net.py:f", "~/net.py:f", "a.b.c:f"):
        assert model_name(good) == good
    for bad in ("lenet6", "net.py", "net.py:", ":f", "net.py:f-g", "net.py:1", "$(x).py:f"):
        with pytest.raises(ValueError, match=r"FILE\.py:FUNCTION"):
            model_name(bad)


def lambda_layer() -> dict:
    code = {"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}}
    return {"module": "keras.layers", "class_name": "Dense", "config": {"activation": code}}


@pytest.mark.parametrize(
    "document",
    [
        lambda_layer(),
        {"module": "os", "class_name": "system", "config": {}},
        {"module": "keras", "class_name": "models.load_model", "config": {}},
        {"module": "keras.layers", "class_name": "TextVectorization", "config": {}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/x"}},
        {"module": "builtins", "class_name": "function", "config": "eval"},
    ],
)
def test_nothing_that_runs_code_or_opens_a_file_is_built(document):
    whole = {"module": "keras", "class_name": "Sequential", "config": {"layers": [document]}}
    with pytest.raises(ArchitectureError):
        check(Architecture(json.dumps(whole)))
    with pytest.raises(ArchitectureError):
        model_of(Architecture(json.dumps(whole)), 1)


def test_the_same_in_float32():
    mixed = built_here(order("residual", precision="mixed_bfloat16"))
    assert "mixed_bfloat16" in mixed.document
    model = model_of(in_float32(mixed), 1)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    same = model_of(built_here(order("residual")), 1)
    assert all(map(np.array_equal, model.get_weights(), same.get_weights()))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", '{"class_name": "Nothing"}'])
def test_what_is_no_architecture(text):
    with pytest.raises(ArchitectureError):
        model_of(Architecture(text), 1)


def test_the_precision_is_that_of_the_run():
    policies = {
        layer.dtype_policy.name
        for layer in model_of(built_here(order("residual", precision="mixed_bfloat16")), 1).layers
    }
    assert policies == {"mixed_bfloat16", "float32"}
    assert keras.config.dtype_policy().name == "float32"
    assert dataclasses.asdict(order("residual"))["precision"] == "float32"
