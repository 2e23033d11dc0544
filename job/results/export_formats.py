"""What a model can be exported as: how it is written, and read back without the model's code.

Only names are needed to show help, so libraries are imported where they are used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job.errors import JobError
from job.text import one_line

if TYPE_CHECKING:
    import keras
    import numpy as np
    import onnx

BATCH = 1000
# That of ONNX 1.8: onnxruntime reads it from 1.7 on. tf2onnx would take 15, which needs 1.10.
OPSET = 13


class Format(NamedTuple):
    """A format.

    Attributes:
        path: Its file or folder in an export.
        libraries: What must be installed beside TensorFlow.
        write: Writes a model that has been called once, with texts that are kept in the file where
            the format has a place for them.
        predict: Probabilities float32 (n, classes) of what was written, for images float32
            (n, height, width, channels) in [0, 1].
    """

    path: str
    libraries: tuple[str, ...]
    write: Callable[[keras.Model, Path, Mapping[str, str]], None]
    predict: Callable[[Path, np.ndarray], np.ndarray]


def write_savedmodel(model: keras.Model, path: Path, texts: Mapping[str, str]) -> None:
    """Keras writes it (https://keras.io/api/models/model_saving_apis/export/)."""
    model.export(path, format="tf_saved_model", verbose=False)


def write_onnx(model: keras.Model, path: Path, texts: Mapping[str, str]) -> None:
    """Keras has tf2onnx convert the model (https://github.com/onnx/tensorflow-onnx)."""
    import onnx

    with warnings.catch_warnings():
        # Keras asks NumPy for a name that is no longer there.
        warnings.filterwarnings("ignore", ".*np.object", FutureWarning)
        model.export(path, format="onnx", verbose=False, opset_version=OPSET)
    converted = onnx.load(path)
    name_ends(converted.graph)
    converted.graph.doc_string = ""
    # tf2onnx names a second set of operators, whether or not one is used.
    used = {node.domain for node in converted.graph.node}
    others = [one for one in converted.opset_import if one.domain not in used]
    for one in others:
        converted.opset_import.remove(one)
    onnx.helper.set_model_props(converted, dict(texts))
    try:
        onnx.checker.check_model(converted, full_check=True)
    except onnx.checker.ValidationError as error:
        raise JobError(
            "--format onnx: the model has an operation that tf2onnx can't translate "
            f"({one_line(error)}); --format savedmodel takes every model"
        ) from error
    onnx.save(converted, path)


def write_litert(model: keras.Model, path: Path, texts: Mapping[str, str]) -> None:
    """Keras has TensorFlow convert it (https://ai.google.dev/edge/litert/models/convert)."""
    model.export(path, format="litert", verbose=False)


def name_ends(graph: onnx.GraphProto) -> None:
    """Names input, output and the axis of examples: users and tf2onnx call them otherwise."""
    (image,), (output,) = graph.input, graph.output
    names = {image.name: "image", output.name: "probabilities"}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for end in (image, output):
        end.name = names[end.name]
        end.type.tensor_type.shape.dim[0].dim_param = "batch"


def predict_savedmodel(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes), by TensorFlow without Keras."""
    import tensorflow as tf

    # Its variables go when it goes.
    model = tf.saved_model.load(str(path))
    return in_batches(lambda batch: model.serve(batch).numpy(), images)


def predict_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes), by ONNX Runtime on processors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return in_batches(lambda batch: session.run(["probabilities"], {"image": batch})[0], images)


def predict_litert(path: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes), by TensorFlow's interpreter of such files."""
    import tensorflow as tf

    from job.engine.runtime import stderr_held_back

    with warnings.catch_warnings():
        # It has moved to a package of its own, for whoever has no TensorFlow.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(str(path))
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(batch: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(image["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    # It says which of its own libraries it uses.
    with stderr_held_back():
        return in_batches(predict, images)


def in_batches(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """Predictions for all images, `BATCH` at a time."""
    import numpy as np

    starts = range(0, len(images), BATCH)
    return np.concatenate([predict(images[start : start + BATCH]) for start in starts])


FORMATS = {
    "savedmodel": Format("saved_model", (), write_savedmodel, predict_savedmodel),
    "onnx": Format("model.onnx", ("tf2onnx", "onnx", "onnxruntime"), write_onnx, predict_onnx),
    "litert": Format("model.tflite", (), write_litert, predict_litert),
}
