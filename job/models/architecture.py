"""A model's architecture as JSON: what a run keeps of a user's model, read without its source.

Nothing that is read can run code or open a file: only what Keras itself defines is built, and of
that no layer that holds code or names a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# Where Keras says that its own classes are. Operations such as `x + y` in a Functional model have
# no public place.
KERAS = (
    *("keras", "keras.layers", "keras.initializers", "keras.regularizers", "keras.constraints"),
    *("keras.dtype_policies", "keras.models"),
)
OPERATIONS = ("keras.src.ops.", "keras.src.models.")
# Marks of Keras' format that are no classes.
MARKS = ("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__")
# These hold code, run another framework's, or read a file that is named.
REFUSED = (
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("TextVectorization", "StringLookup", "IntegerLookup", "Hashing"),
)
# Of what Keras says, which can be pages.
MOST_WORDS = 300
MOST_PARAMETERS = 10**9


class ArchitectureError(ValueError):
    """An architecture that is not built, and why."""


def check(architecture: str) -> None:
    """Raises ArchitectureError for what is not Keras' own, or holds code or the name of a file."""
    try:
        classes = list(_classes(json.loads(architecture)))
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"is no JSON of Keras ({error})") from error
    for module, name in classes:
        if name == "__lambda__" or name in REFUSED:
            shown = "Python lambda" if name == "__lambda__" else f"{name} layer"
            raise ArchitectureError(
                f"has a {shown}, which holds code or names a file; say it with other layers of "
                "keras.layers, or with keras.ops between them"
            )
        is_kerass = module in KERAS or str(module).startswith(OPERATIONS)
        if not is_kerass or not name.isidentifier():
            raise ArchitectureError(
                f"has a {name} of {module or 'its own'}, which is not Keras' own, and a run goes "
                "on without your source; build it of keras.layers, with keras.ops between them"
            )


def model_of(architecture: str, seed: int) -> keras.Model:
    """Builds a model whose weights are a function of architecture and seed.

    Args:
        architecture: JSON, as `keras.Model.to_json` gives it.
        seed: Sets Keras' global seed, as `keras.utils.set_random_seed` does.

    Returns:
        A Keras model from images, float in [0, 1], to class probabilities.

    Raises:
        ArchitectureError: As `check`, or Keras can't read it.
    """
    import keras

    check(architecture)
    keras.utils.set_random_seed(seed)
    try:
        return keras.models.model_from_json(architecture)
    except (ValueError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())[:MOST_WORDS]
        raise ArchitectureError(f"can't be built by Keras {keras.__version__}: {why}") from error


def sees_whole_batch(architecture: str) -> bool:
    """Whether it has layers that see more than one example, as `whole_batch_layers` finds them.

    Told without Keras, whose threads are set before a model is built.
    """
    return any(map(_sees_more, _parts(json.loads(architecture))))


def _sees_more(part: dict[str, Any]) -> bool:
    name, config = part.get("class_name"), part.get("config")
    if part.get("module") != "keras.layers" or not isinstance(config, dict):
        return False
    if name == "Dropout" and config.get("noise_shape") is None:
        return False
    return name == "BatchNormalization" or "seed" in config


def in_float32(architecture: str) -> str:
    """The same architecture, of layers that all compute in float32."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(value) for value in part]
        if not isinstance(part, dict):
            return part
        if part.get("class_name") == "DTypePolicy":
            return {**part, "config": {**part["config"], "name": "float32"}}
        return {key: plain(value) for key, value in part.items()}

    return json.dumps(plain(json.loads(architecture)))


def _classes(document: Any) -> Iterator[tuple[str | None, str]]:
    """Module and name of every class in a document of Keras' format."""
    for part in _parts(document):
        name = part.get("class_name")
        if isinstance(name, str) and name not in MARKS:
            yield part.get("module"), name


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _parts(value)
