"""A model's architecture as JSON: what a run keeps of a user's model.

Nothing that is read can run code or open a file: only what Keras itself defines is built, and of
that no layer that holds code or names a file. What is not Keras' own comes from a file that the
user has given in the same command.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from job.errors import JobError
from job.models.source import Source

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
MARKS = (
    *("__keras_tensor__", "__tuple__", "__numpy__", "__tensor__"),
    *("__slice__", "__ellipsis__"),
)
# These hold code, run another framework's, or read a file that is named.
REFUSED = (
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
    *("TextVectorization", "StringLookup", "IntegerLookup", "Hashing"),
)
# Of what Keras says, which can be pages.
MOST_WORDS = 300
MOST_PARAMETERS = 10**9


class ArchitectureError(JobError):
    """An architecture that is not built, and why."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a model of the user's own is built from.

    Attributes:
        document: JSON, as `keras.Model.to_json` gives it.
        source: The file that defines those parts of it that are not Keras' own, if it has any.
    """

    document: str
    source: Source | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """What `dataclasses.asdict` made a dict of."""
        source = values["source"]
        return cls(values["document"], Source(**source) if source else None)

    @property
    def sha256(self) -> str:
        """Of the document, as hexadecimal digits."""
        return hashlib.sha256(self.document.encode()).hexdigest()

    @property
    def own_parts(self) -> list[str]:
        """The names of its parts that are not Keras' own.

        Raises:
            ArchitectureError: It is no architecture.
        """
        found = _classes(self.document)
        return sorted({name for module, name, _ in found if not _is_kerass(module)})

    def needing(self, source: Source | None) -> Architecture:
        """The same with a file, if it has parts that need one."""
        return dataclasses.replace(self, source=source if self.own_parts else None)


def check(architecture: Architecture) -> None:
    """Raises ArchitectureError for what neither Keras nor its source defines, or names a file."""
    for module, name, registered in _classes(architecture.document):
        if name == "__lambda__" or name in REFUSED:
            shown = "Python lambda" if name == "__lambda__" else f"{name} layer"
            raise ArchitectureError(
                f"its model has a {shown}, which holds code or names a file; say it with other "
                "layers of keras.layers, or with keras.ops between them"
            )
        if _is_kerass(module) and name.isidentifier():
            continue
        if architecture.source is None:
            raise ArchitectureError(
                f"its model has a {name} of {module or 'its own'}, which is not Keras' own, and "
                "the file that defines it is not given"
            )
        if registered not in _own(architecture.source):
            raise ArchitectureError(
                f"its model has a {name} of {module or 'its own'}, which is neither Keras' own "
                f"nor defined at the top of {architecture.source.file}; define it there"
            )


def model_of(architecture: Architecture, seed: int) -> keras.Model:
    """Builds a model whose weights are a function of architecture and seed.

    Args:
        architecture: What is built; runs its source, if it has one.
        seed: Sets Keras' global seed, as `keras.utils.set_random_seed` does.

    Returns:
        A Keras model from images, float in [0, 1], to class probabilities.

    Raises:
        ArchitectureError: As `check`, or Keras can't read it.
    """
    import keras

    check(architecture)
    parts = own_objects(architecture)
    keras.utils.set_random_seed(seed)
    try:
        return keras.models.model_from_json(architecture.document, custom_objects=parts)
    except Exception as error:
        # The user's own layers raise what they like.
        why = " ".join(str(error).split())[:MOST_WORDS]
        raise ArchitectureError(
            f"its model can't be built by Keras {keras.__version__}: {why}"
        ) from error


def source_of(architecture: Architecture | None) -> Source | None:
    """The file that is needed to build a model again; none for one that is all Keras' own."""
    return architecture.source if architecture else None


def own_objects(architecture: Architecture | None) -> dict[str, Any]:
    """What Keras is to find in the user's file, by name; runs that."""
    source = source_of(architecture)
    return _own(source) if source else {}


def sees_whole_batch(architecture: Architecture) -> bool:
    """Whether it has layers that see more than one example, or may, as parts of the user's own.

    Told without Keras, whose threads are set before a model is built.
    """
    document = json.loads(architecture.document)
    return bool(architecture.own_parts) or any(map(_sees_more, _parts(document)))


def _sees_more(part: dict[str, Any]) -> bool:
    name, config = part.get("class_name"), part.get("config")
    if part.get("module") != "keras.layers" or not isinstance(config, dict):
        return False
    if name == "Dropout" and config.get("noise_shape") is None:
        return False
    return name == "BatchNormalization" or "seed" in config


def in_float32(architecture: Architecture) -> Architecture:
    """The same architecture, of layers that all compute in float32."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(value) for value in part]
        if not isinstance(part, dict):
            return part
        if part.get("class_name") == "DTypePolicy":
            return {**part, "config": {**part["config"], "name": "float32"}}
        return {key: plain(value) for key, value in part.items()}

    document = json.dumps(plain(json.loads(architecture.document)))
    return dataclasses.replace(architecture, document=document)


def _own(source: Source) -> dict[str, Any]:
    from job.models.code import parts_of

    try:
        return parts_of(source)
    except Exception as error:
        why = " ".join(str(error).split())[:MOST_WORDS]
        raise ArchitectureError(
            f"its model has parts of {source.file}, which can't be loaded here: "
            f"{type(error).__name__}: "
            f"{why}; the file must need no others of yours"
        ) from error


def _is_kerass(module: str | None) -> bool:
    return module in KERAS or str(module).startswith(OPERATIONS)


def _classes(document: str) -> list[tuple[str | None, str, str | None]]:
    """Of every class and function in a document of Keras' format module, name, registered name."""
    try:
        parts = list(_parts(json.loads(document)))
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"its architecture is no JSON of Keras ({error})") from error
    found = []
    for part in parts:
        name, registered = part.get("class_name"), part.get("registered_name")
        if name == "function" and isinstance(part.get("config"), str):
            name = registered = part["config"]
        if isinstance(name, str) and name not in MARKS:
            found.append((part.get("module"), name, registered))
    return found


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    if isinstance(part, dict):
        yield part
    if isinstance(part, dict | list):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _parts(value)
