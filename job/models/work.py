"""How much a model has to compute, and in how many lanes processors are to do it.

It is told without Keras, which takes seconds to import: a run's lanes are noted before it starts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from job.models.architecture import Architecture
from job.models.builtin import MODELS

Shape = tuple[int, ...]
# Multiplications of a lane's images that make it worth its price: its operations are called, and
# its gradients, as large as the model, are added to the other lanes'. So an image takes 1.3 times
# the work of two lanes at most, and more would add little (`python -m benchmarks.scaling.lanes`).
WORTH_A_LANE = 22_000_000
# Layers that keep a shape, and multiply little or nothing.
LIGHT = (
    *("InputLayer", "Dropout", "SpatialDropout2D", "GaussianNoise", "Activation", "ReLU"),
    *("LeakyReLU", "ELU", "PReLU", "Softmax", "Rescaling", "BatchNormalization"),
    *("LayerNormalization", "GroupNormalization", "Add", "Subtract", "Multiply", "Average"),
    *("Concatenate", "Reshape", "ZeroPadding2D", "Cropping2D", "UpSampling2D"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D"),
)
HEAVY = ("Dense", "Conv2D", "DepthwiseConv2D")


def lanes_for(threads: int, images: float, multiplications: int | None) -> int:
    """In how many lanes to compute a step: no more than pay.

    Threads that are left have nothing to do. They could share the operations of each lane; but
    where a lane does not pay, that does not either (docs/studies/performance.md).

    Args:
        threads: Threads that compute.
        images: Those of a step.
        multiplications: Of an image; None where that is not known: a lane for each thread.
    """
    if multiplications is None:
        return threads
    return max(1, min(threads, int(images * multiplications / WORTH_A_LANE)))


def multiplications(
    model: str, image_shape: Shape, classes: int, architecture: Architecture | None = None
) -> int | None:
    """Multiplications of one image's way through a model's products and convolutions.

    Args:
        model: The name of a built-in one.
        image_shape: Height, width and channels.
        classes: Number of labels.
        architecture: A model that is none of those.

    Returns:
        Their number; None for a model with layers that are not known here.
    """
    if architecture is not None:
        return _of_document(architecture.document)
    total, shape = 0, image_shape
    for kind, config in MODELS[model](_Sketch(), classes):
        more, shape = _through(kind, config, shape)
        total += more
    return total


class _Sketch:
    """Stands for `keras.layers` where a model is measured: a layer is its kind and settings."""

    def __getattr__(self, kind: str) -> Callable[..., tuple[str, Mapping[str, Any]]]:
        first = {"Conv2D": ("filters", "kernel_size"), "Dense": ("units",)}.get(
            kind, ("pool_size",)
        )
        return lambda *given, **config: (kind, {**dict(zip(first, given, strict=False)), **config})


def _of_document(document: str) -> int | None:
    total = 0
    for layer in json.loads(document)["config"]["layers"]:
        kind, config = layer["class_name"], layer["config"]
        if kind in LIGHT or "Pooling" in kind or kind == "Flatten":
            continue
        shape = (layer.get("build_config") or {}).get("input_shape")
        is_known = layer.get("module") == "keras.layers" and kind in HEAVY
        if not is_known or not shape or None in shape[1:]:
            return None
        total += _through(kind, config, tuple(shape[1:]))[0]
    return total


def _through(kind: str, config: Mapping[str, Any], shape: Shape) -> tuple[int, Shape]:
    """A layer's multiplications for an image, and the shape of what it gives."""
    match kind:
        case "Dense":
            return math.prod(shape) * config["units"], (*shape[:-1], config["units"])
        case "Conv2D" | "DepthwiseConv2D":
            kernel = _pair(config["kernel_size"])
            sides = _sides(shape, kernel, config.get("strides") or 1, config)
            # Each of a depthwise convolution's filters sees one channel.
            filters = config.get("filters") or shape[-1] * config.get("depth_multiplier", 1)
            seen = shape[-1] // config.get("groups", 1) if "filters" in config else 1
            return math.prod((*sides, *kernel, seen, filters)), (*sides, filters)
        case "AveragePooling2D" | "MaxPooling2D":
            size = _pair(config["pool_size"])
            return 0, (*_sides(shape, size, config.get("strides") or size, config), shape[-1])
        case "Flatten":
            return 0, (math.prod(shape),)
    return 0, shape


def _sides(
    shape: Shape, window: Sequence[int], strides: int | Sequence[int], config: Mapping[str, Any]
) -> list[int]:
    lost = [0 if config.get("padding") == "same" else size - 1 for size in window]
    return [
        -(-(side - less) // step)
        for side, less, step in zip(shape[:2], lost, _pair(strides), strict=True)
    ]


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value
