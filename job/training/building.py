"""A user's own model, built and checked before anything is written.

The user's function runs once, in a process of its own, on the processor: whatever it prints, sets
or breaks stays there. All that comes back is the architecture, as JSON. From then on a run, its
workers and whoever evaluates it build the model from that, so that a run that goes on, without the
source, is the same run. Only a model with parts that the user's file defines needs that again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from job.config.config import TrainConfig
from job.data.catalogue import Dataset
from job.errors import InputError, nearest
from job.models.architecture import (
    MOST_PARAMETERS,
    Architecture,
    ArchitectureError,
    check,
    model_of,
)
from job.models.code import module_of
from job.models.source import Source
from job.training.apart import Answer, EndedError, apart

if TYPE_CHECKING:
    import keras
    import numpy as np

SOFTMAX = "probabilities"
FORGETFUL = (
    "its model computes something else when it is built again from what its layers say of "
    "themselves; let get_config give all that their __init__ takes"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What a model is built for.

    Attributes:
        source: Its function.
        image_shape: Height, width and channels.
        classes: Number of labels.
        precision: As `TrainConfig.precision`.
        output: As `TrainConfig.output`.
    """

    source: Source
    image_shape: tuple[int, int, int]
    classes: int
    precision: str = "float32"
    output: str = "auto"


def architecture_of(source: Source, config: TrainConfig, dataset: Dataset) -> Architecture:
    """The architecture of a user's model for a data set.

    Raises:
        InputError: The function can't be called, or its model can't be trained here.
    """
    return build(
        Order(
            source=source,
            image_shape=dataset.image_shape,
            classes=len(dataset.labels),
            precision=config.precision,
            output=config.output,
        )
    )


def build(order: Order) -> Architecture:
    """Runs a user's function in a process of its own; as `architecture_of`."""
    where = f"{order.source.file}:{order.source.function}"
    try:
        said = apart(built_apart, dataclasses.asdict(order), f"{where} to build a model")
    except EndedError as how:
        raise InputError("--model", where, f"ended the process that built it ({how})") from None
    if "problem" in said:
        raise InputError("--model", where, said["problem"])
    return Architecture(said["document"]).needing(order.source)


class UnfitError(Exception):
    """What keeps a user's model from being trained, in the words that follow its name."""


def built_apart(asked: Answer) -> Answer:
    """The other process' part: the architecture for an order, or what is wrong with its model."""
    order = Order(
        **{
            **asked,
            "source": Source(**asked["source"]),
            "image_shape": tuple(asked["image_shape"]),
        }
    )
    try:
        return {"document": built_here(order).document}
    except (UnfitError, ArchitectureError) as problem:
        return {"problem": str(problem)}
    except InputError as problem:
        return {"problem": problem.problem}


def built_here(order: Order) -> Architecture:
    """Runs a user's function in this process, and checks its model.

    Raises:
        UnfitError, ArchitectureError, InputError: The function can't be called, or its model can't
            be trained.
    """
    from job.engine.runtime import start_tensorflow

    start_tensorflow(device="cpu")
    import keras

    # Layers without a name are numbered.
    keras.utils.clear_session()
    keras.config.set_dtype_policy(order.precision)
    before = set(sys.modules)
    try:
        function = _function(order.source)
        models = [_called(function, order, seed) for seed in (1, 2)]
        _check(models[0], order)
        model = _with_probabilities(models[0], order.output)
    finally:
        keras.config.set_dtype_policy("float32")
    architecture = _described(model, order.source)
    if architecture.source:
        _check_alone(order.source, set(sys.modules) - before)
    rebuilt = model_of(architecture, seed=1)
    _check_weights(models, rebuilt)
    _check_the_same(model, rebuilt, order)
    from job.engine.twin import check_layers

    check_layers(rebuilt)
    with _explaining(order.source, "it can't be made ready for training: "):
        _check_training(rebuilt, order)
    return architecture


def _function(source: Source) -> Callable[..., Any]:
    with _explaining(source, "can't be loaded: "):
        module = module_of(source)
    found = getattr(module, source.function, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value)]
        raise UnfitError(
            f"the file has no function {source.function}{nearest(source.function, names)}"
        )
    return found


def _called(function: Callable[..., Any], order: Order, seed: int) -> keras.Model:
    import keras

    keras.utils.set_random_seed(seed)
    with _explaining(order.source, f"called with {_arguments(order)} it raised "):
        model = function(image_shape=order.image_shape, classes=order.classes)
    if not isinstance(model, keras.Model):
        raise UnfitError(f"returned {_kind(model)}; return a keras.Model")
    with _explaining(order.source, "its model can't be built: "):
        if not model.built:
            model.build((None, *order.image_shape))
    return model


def _check(model: keras.Model, order: Order) -> None:
    import numpy as np

    # A model that is a class of the user's has neither.
    ends = len(getattr(model, "inputs", ())), len(getattr(model, "outputs", ()))
    if ends != (1, 1) or not type(model).__module__.startswith("keras."):
        raise UnfitError(
            f"its model, {_kind(model)}, has {ends[0]} inputs and {ends[1]} outputs; make a "
            "Sequential or Functional one with one input and one output"
        )
    takes, gives = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    if takes != order.image_shape:
        raise UnfitError(
            f"its model takes {_shape(takes)}, and the pictures are {_shape(order.image_shape)}; "
            "use the image_shape that the function is given"
        )
    if gives != (order.classes,):
        raise UnfitError(
            f"its model gives {_shape(gives)} for a picture, and there are {order.classes} labels; "
            "use the classes that the function is given"
        )
    if not model.trainable_variables:
        raise UnfitError("its model has nothing to train")
    if model.count_params() > MOST_PARAMETERS:
        raise UnfitError(
            f"its model has {model.count_params():,} parameters; at most {MOST_PARAMETERS:,}"
        )
    check(_described(model, order.source))
    with _explaining(order.source, "given two pictures its model raised "):
        model(np.zeros((2, *order.image_shape), np.float32), training=False)


def _with_probabilities(model: keras.Model, output: str) -> keras.Model:
    """The model as a Functional one of one tensor, with a softmax at its end, if it has none."""
    import keras

    last = model.outputs[0]
    layer = model.layers[-1]
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "")
    if isinstance(layer, keras.layers.Softmax) or name == "softmax":
        found = "probabilities"
    elif name == "linear":
        found = "logits"
    else:
        found = ""
    if output == "auto" and not found:
        raise UnfitError(
            f"its last layer is {layer.name}, {_kind(layer)}"
            + (f" with {name}" if name else "")
            + ": whether it gives probabilities or logits can't be told; end in a Dense layer with "
            "softmax, or without activation, or give --output"
        )
    if (found if output == "auto" else output) == "probabilities":
        if found != "probabilities":
            raise UnfitError("--output probabilities needs a model that ends in a softmax")
        if last.dtype != "float32":
            raise UnfitError(
                f"its probabilities are {last.dtype}, too coarse for a cross-entropy; give the "
                'last layer dtype="float32"'
            )
    else:
        last = keras.layers.Softmax(dtype="float32", name=SOFTMAX)(last)
    return keras.Model(model.inputs[0], last, name=model.name)


def _check_weights(models: list[keras.Model], rebuilt: keras.Model) -> None:
    """Refuses weights that would be lost: those that don't come from an initializer."""
    import numpy as np

    shapes = [[tuple(v.shape) for v in each.weights] for each in (models[0], rebuilt)]
    if shapes[0] != shapes[1]:
        raise UnfitError(FORGETFUL)
    paths = [variable.path for variable in rebuilt.weights]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise UnfitError(f"two of its arrays are called {twice[0]}; give layers names of their own")
    one, other = (model.get_weights() for model in models)
    given = [
        path
        for path, a, b, c in zip(paths, one, other, rebuilt.get_weights(), strict=True)
        if np.array_equal(a, b) and not np.array_equal(a, c)
    ]
    if given:
        raise UnfitError(
            f"its model comes with weights of its own ({given[0]} and {len(given) - 1} more), "
            "which would not be kept; let the function return fresh layers"
        )


def _check_alone(source: Source, loaded: Iterable[str]) -> None:
    """Refuses a file with layers that needs another one, which would not go with the run."""
    places = tuple(os.path.join(place, "") for place in sys.path if place)
    for name in sorted(loaded):
        file = getattr(sys.modules[name], "__file__", None)
        if file and file != source.file and not file.startswith(places):
            raise UnfitError(
                f"its layers come with {name}, another file of yours ({file}), which does not go "
                "with the run; put all of it into one file"
            )


def _described(model: keras.Model, source: Source) -> Architecture:
    with _explaining(source, "its model can't be described, so that it is built again: "):
        return Architecture(model.to_json()).needing(source)


def _check_the_same(model: keras.Model, rebuilt: keras.Model, order: Order) -> None:
    """Refuses layers whose `get_config` leaves something out."""
    import numpy as np

    # Where layers begin with zeros, what stands behind them would not be seen.
    noise = np.random.default_rng(1)
    weights = [
        array + np.abs(noise.normal(0, 0.05, array.shape)).astype(array.dtype)
        for array in model.get_weights()
    ]
    model.set_weights(weights)
    rebuilt.set_weights(weights)
    pictures = _pictures(order, seed=1)
    one, other = (np.asarray(each(pictures, training=False)) for each in (model, rebuilt))
    if not np.allclose(one, other, rtol=1e-3, atol=1e-3):
        raise UnfitError(FORGETFUL)


def _check_training(model: keras.Model, order: Order) -> None:
    """Refuses a model of which more than examples, seed and step decide what it gives in training.

    What it gives for some pictures is looked at twice, with other pictures beside them.
    """
    import numpy as np
    import tensorflow as tf

    from job.engine.randomness import ExampleNoise
    from job.engine.twin import is_batch_normalization, leaves, training_twin

    for layer in leaves(model):
        if is_batch_normalization(layer):
            # It sees all pictures on purpose; not with the moments that it has kept.
            layer.trainable = False
    noise = ExampleNoise()
    twin = training_twin(model, noise)
    first, beside, others = (_pictures(order, seed) for seed in (1, 2, 3))

    @tf.function
    def traced(pictures: tf.Tensor) -> tf.Tensor:
        with noise.at(*map(tf.constant, (1, 1, 0))):
            return twin(pictures, training=True)

    def given(*pictures: np.ndarray) -> np.ndarray:
        return np.asarray(traced(tf.constant(np.concatenate(pictures))))[: len(first)]

    once = given(first, beside)
    regularised = [v for v in twin.trainable_weights if v.regularizer is not None]
    if len(twin.losses) > len(regularised):
        raise UnfitError(
            "a layer of its model calls add_loss, for which the rows that fill up a batch would "
            "count; regularise weights instead"
        )
    if not np.allclose(once, given(first, beside), rtol=1e-3, atol=1e-4):
        raise UnfitError(
            "its model gives other values each time that it is called in training; let layers draw "
            "from a keras.random.SeedGenerator, an attribute of theirs, and keep nothing between "
            "calls"
        )
    if not np.allclose(once, given(first, others), rtol=1e-3, atol=1e-4):
        raise UnfitError(
            "what its model gives for a picture depends on the others of a batch, which is divided "
            "among threads and workers; of such layers only BatchNormalization can be trained"
        )


def _pictures(order: Order, seed: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(seed).random((2, *order.image_shape), np.float32)


@contextlib.contextmanager
def _explaining(source: Source, what: str) -> Iterator[None]:
    """Turns what the user's code raises into a problem that names the line."""
    try:
        yield
    except (UnfitError, ArchitectureError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == source.file]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f" (line {line})" if line else ""
        message = " ".join(str(error).split())
        raise UnfitError(f"{what}{type(error).__name__}: {message}{where}") from error


def _arguments(order: Order) -> str:
    return f"image_shape={order.image_shape}, classes={order.classes}"


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("any" if size is None else str(size) for size in shape) or "one number"
