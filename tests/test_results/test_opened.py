"""What a run leaves is opened by what people have: other backends of Keras, plain readers of tables
and events, and, by what is in the files, older versions. docs/export.md lists what was tried."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from job.engine.runtime import start_tensorflow
from tests.kit.commands import environment

start_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from job.models import MODELS, build_model  # noqa: E402
from job.results.artifacts import for_any_version, keras_file  # noqa: E402
from job.results.export_formats import OPSET, write_onnx  # noqa: E402

# Of keras.json's backends; Keras' own for NumPy wants JAX, too.
BACKENDS = {"tensorflow": ["tensorflow"], "jax": ["jax"], "torch": ["torch"], "numpy": ["jax"]}
READER = """
import sys
import numpy as np
import keras
model = keras.models.load_model(sys.argv[1])
print(keras.backend.backend(), file=sys.stderr)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_reads_the_model_with_each_of_its_backends(backend, finished_run, splits, tmp_path):
    for package in BACKENDS[backend]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    images = splits[2].images[:100, ..., None].astype(np.float32) / 255
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [
            *(sys.executable, "-c", READER, finished_run / "model.keras"),
            *(tmp_path / "images.npy", tmp_path / "found.npy"),
        ],
        env=environment(KERAS_BACKEND=backend),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == backend
    here = keras.models.load_model(finished_run / "model.keras").predict(images, verbose=0)
    assert abs(np.load(tmp_path / "found.npy") - here).max() < 1e-5


def configs(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a model's configuration, down to the last."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from configs(item)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_in_the_file_is_of_later_versions_and_the_model_is_the_same(name, tmp_path):
    model = build_model(name)
    (tmp_path / "model.keras").write_bytes(keras_file(model))
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        found = list(configs(json.loads(archive.read("config.json"))))
    assert found
    for config in found:
        assert config.get("class_name") != "DTypePolicy"
        assert "quantization_config" not in config
        if config.get("module") == "keras.initializers":
            # `input_axes`, say, ends Keras 3.6 with a TypeError.
            assert None not in config["config"].values()
    model.save(tmp_path / "plain.keras")
    again, plain = (keras.models.load_model(tmp_path / f"{n}.keras") for n in ("model", "plain"))
    assert for_any_version(again.get_config()) == for_any_version(plain.get_config())
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))


def test_what_is_set_stays():
    layer = keras.layers.Dense(
        2, kernel_initializer=keras.initializers.GlorotUniform(seed=3), dtype="mixed_bfloat16"
    )
    kept = for_any_version(keras.saving.serialize_keras_object(layer))
    assert kept["config"]["dtype"] == "mixed_bfloat16"
    assert kept["config"]["kernel_initializer"]["config"] == {"seed": 3}


@pytest.mark.parametrize("name", MODELS)
def test_onnx_asks_for_no_more_than_it_needs(name, tmp_path):
    import onnx

    model = build_model(name)
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    write_onnx(model, tmp_path / "model.onnx", {})
    written = onnx.load(tmp_path / "model.onnx")
    assert [(one.domain, one.version) for one in written.opset_import] == [("", OPSET)]
    # https://onnxruntime.ai/docs/reference/compatibility.html: IR 7 and opset 13 from 1.7 on
    assert (written.ir_version, OPSET) == (7, 13)


def test_tables_are_those_that_any_reader_knows(finished_run):
    for name in ("history.parquet", "test_predictions.parquet"):
        about = pq.ParquetFile(finished_run / name).metadata
        columns = [about.row_group(0).column(i) for i in range(about.num_columns)]
        assert {column.compression for column in columns} == {"SNAPPY"}, name
        assert {column.physical_type for column in columns} <= {"INT32", "INT64", "DOUBLE"}, name
    rows = list(csv.DictReader(io.StringIO((finished_run / "history.csv").read_text())))
    table = pq.read_table(finished_run / "history.parquet").to_pylist()
    assert [{k: float(v) for k, v in row.items()} for row in rows] == table


def test_events_are_scalars_of_the_first_kind(finished_run):
    """Which TensorBoard shows without its plugins."""
    for part in ("train", "validation"):
        (file,) = Path(finished_run / "tensorboard" / part).iterdir()
        events = list(tf.compat.v1.train.summary_iterator(str(file)))
        assert events[0].file_version == "brain.Event:2"
        kinds = {value.WhichOneof("value") for e in events for value in e.summary.value}
        assert kinds == {"simple_value"}
        # One for each value.
        steps = [event.step for event in events[1:]]
        assert steps == sorted(steps)
        assert set(steps) == {1, 2}
