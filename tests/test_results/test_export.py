"""An export predicts what its run does, or is not there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from job.engine.runtime import start_tensorflow
from job.errors import JobError
from tests.kit.commands import environment, result_of, tree
from tuning.cli import run_command

start_tensorflow()

import keras  # noqa: E402
import onnx  # noqa: E402

from job.engine.scoring import predict, scale  # noqa: E402
from job.results.export import TOLERANCE, compare, export_run  # noqa: E402
from job.results.export_formats import FORMATS  # noqa: E402
from job.runs.run import (  # noqa: E402
    open_run,
    prepare_run,
)
from job.storage.open import open_storage  # noqa: E402
from job.train import (  # noqa: E402
    train_and_evaluate,
    training_session,
)
from job.training.progress import PlainProgress  # noqa: E402


@pytest.fixture(scope="module")
def exported(finished_run, lenet, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """What `lenet export` makes of the small run, and what it says."""
    folder = tmp_path_factory.mktemp("exported")
    done = lenet("export", finished_run, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "export-smoke", done


# Follows the cards in a new process; what needs least comes first.
READER = """
import json, os, sys
import numpy as np
for folder, code, needless, out in json.loads(sys.argv[1]):
    os.chdir(folder)
    names = {}
    exec(code, names)
    np.save(out, names["probabilities"])
    assert not {"job", *needless} & sys.modules.keys(), needless
"""


def code_in_card(folder: Path, call: str) -> str:
    """The lines of a folder's card that call this."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if call in block]
    return code


def test_whoever_follows_the_cards_gets_the_same_predictions(
    finished_run, exported, splits, tmp_path
):
    folder, _ = exported
    np.save(tmp_path / "images.npy", scale(splits[2].images).numpy())
    work = []
    for place, call, needless in (
        (folder, "onnxruntime.", ["keras", "tensorflow"]),
        (folder, "saved_model.", []),
        (folder, "lite.", []),
        (finished_run, "keras.", []),
    ):
        code, count = re.subn(
            r"np\.zeros\(.*\)",
            f"np.load({str(tmp_path / 'images.npy')!r})",
            code_in_card(place, call),
        )
        assert count == 1
        work.append((str(place), code, needless, str(tmp_path / f"{call}npy")))
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(work)],
        env=environment(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="1"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    of_run, *others = (
        np.load(tmp_path / f"{name}.npy")
        for name in ("keras", "saved_model", "lite", "onnxruntime")
    )
    accuracy = (of_run.argmax(axis=1) == splits[2].labels).mean()
    assert accuracy == result_of(finished_run)["test_accuracy"]
    for probabilities in others:
        assert probabilities.shape == (10_000, 10)
        assert np.array_equal(probabilities.argmax(axis=1), of_run.argmax(axis=1))
        assert abs(probabilities - of_run).max() <= TOLERANCE


def test_it_says_how_it_compares_and_no_accuracy(exported, finished_run):
    folder, done = exported
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert [line.partition(": ")[0] for line in lines] == [
        f"{folder.name}/{form.path}" for form in FORMATS.values()
    ]
    assert all("0 of 10,000 labels differ" in line for line in lines)
    assert "accuracy" not in done.stdout
    assert f"{result_of(finished_run)['test_accuracy']:.2%}" not in done.stdout


def test_the_manifest_names_every_file(exported, finished_run):
    folder, _ = exported
    document = json.loads((folder / "export.json").read_text())
    assert document["best_weights_sha256"] == result_of(finished_run)["best_weights_sha256"]
    files = {p: c for p, c in tree(folder).items() if not p.endswith("/") and p != "export.json"}
    assert document["files"] == {p: hashlib.sha256(c).hexdigest() for p, c in files.items()}
    assert document["labels"] == list("0123456789")
    for compared in document["formats"].values():
        assert compared["examples"] == 10_000
        assert compared["other_labels"] == 0
        assert 0 < compared["largest_difference"] <= TOLERANCE


def test_an_export_tells_nothing_of_the_machine(exported, finished_run):
    private = [str(Path(__file__).parents[2]), str(exported[0].parent), str(finished_run.parent)]
    private += [sys.prefix, str(Path.home())] if str(Path.home()) != "/" else [sys.prefix]
    for name, content in tree(exported[0]).items():
        assert not [p for p in private if p.encode() in content], name


def test_onnx_carries_its_labels_and_takes_any_number_of_pictures(exported):
    model = onnx.load(exported[0] / "model.onnx")
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["labels"]) == list("0123456789")
    assert texts["run"] == "smoke"
    for end, name in ((model.graph.input, "image"), (model.graph.output, "probabilities")):
        (end,) = end
        assert end.name == name
        assert end.type.tensor_type.shape.dim[0].dim_param == "batch"


def sequence(layers: list, shape=(28, 28, 1)) -> keras.Model:
    return keras.Sequential([keras.Input(shape, name="image"), *layers])


KINDS = {
    "pooling by maximum, padded": lambda of: [
        of.Conv2D(8, 3, padding="same", activation="relu"),
        of.MaxPooling2D(3, strides=2),
        of.Conv2D(8, 5, strides=2, padding="same", activation="relu"),
        of.MaxPooling2D(2, padding="same"),
        of.Flatten(),
        of.Dropout(0.5),
        of.Dense(16, activation="relu"),
    ],
    "normalised, pooled over all": lambda of: [
        of.ZeroPadding2D(1),
        of.Conv2D(8, 3, use_bias=False),
        of.BatchNormalization(),
        of.Activation("relu"),
        of.AveragePooling2D(2, padding="same"),
        of.GlobalAveragePooling2D(),
    ],
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_other_kinds_of_layers_are_the_same_too(name, kind, shape, tmp_path):
    keras.utils.set_random_seed(1)
    layers = KINDS[kind](keras.layers)
    model = sequence([*layers, keras.layers.Dense(10, activation="softmax")], shape)
    images = np.random.default_rng(1).integers(0, 256, (1500, *shape), dtype=np.uint8)
    expected = predict(model, images)
    FORMATS[name].write(model, tmp_path / FORMATS[name].path, {})
    assert compare(FORMATS[name], tmp_path, scale(images).numpy(), expected).is_same


def other_weights(path: Path) -> None:
    """One weight, a little larger."""
    model = onnx.load(path)
    (weight, *_) = [w for w in model.graph.initializer if len(w.dims) == 4]
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def overwritten(path: Path) -> None:
    """Some weights of the largest layer. A file that is cut off ends LiteRT's process."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 & ~3
    content[middle : middle + 4000] = np.full(1000, 0.5, np.float32).tobytes()
    path.write_bytes(content)


def flipped(path: Path) -> None:
    variables = path / "variables/variables.data-00000-of-00001"
    content = bytearray(variables.read_bytes())
    content[len(content) // 2] ^= 1
    variables.write_bytes(content)


DAMAGE = {
    "other weights": ("onnx", other_weights, "does not predict what the run does"),
    "cut off": ("onnx", cut_off, "can't be read back"),
    "a flipped bit": ("savedmodel", flipped, "saved_model"),
    "other numbers": ("litert", overwritten, "does not predict what the run does"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_file_that_differs_is_not_kept(case, finished_run, tmp_path, monkeypatch):
    name, damage, why = DAMAGE[case]
    written = FORMATS[name]

    def spoilt(model, path, texts):
        written.write(model, path, texts)
        damage(path)

    monkeypatch.setitem(FORMATS, name, written._replace(write=spoilt))
    with pytest.raises(JobError, match=why) as refused:
        export_run(open_run(str(finished_run)), [name], tmp_path / "out")
    assert refused.value.exit_code == 1
    assert len(str(refused.value).splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_run_whose_weights_are_damaged_is_refused(finished_run, tmp_path, monkeypatch, capsys):
    copy = Path(shutil.copytree(finished_run, tmp_path / "runs/smoke"))
    for file in copy.glob("checkpoints/step-*/*.safetensors"):
        cut_off(file)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run_command(["export", "smoke"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert tree(tmp_path) == before


def test_a_result_that_can_not_be_trusted_is_refused(finished_run, tmp_path):
    copy = Path(shutil.copytree(finished_run, tmp_path / "runs/smoke"))
    for broken in ({"test_accuracy": "high"}, {"test_accuracy": 1e308}, {"versions": []}):
        (copy / "result.json").write_text(json.dumps(result_of(finished_run) | broken))
        with pytest.raises(JobError, match=r"result\.json can't be trusted"):
            export_run(open_run(str(copy)), ["onnx"], tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def unfinished(folder: Path) -> None:
    (folder / "runs/smoke/result.json").unlink()


def occupied(folder: Path) -> None:
    (folder / "export-smoke").mkdir()


def with_notes(folder: Path) -> None:
    occupied(folder)
    (folder / "export-smoke/export.json").write_text('{"files": {}}')
    (folder / "export-smoke/notes.txt").write_text("mine")


def as_it_is(folder: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], None], list[str], str, str]] = {
    "no such run": (as_it_is, ["other"], "RUN 'other'", "no run in"),
    "an unfinished run": (unfinished, ["smoke"], "RUN 'smoke'", "lenet train --name smoke"),
    "no such format": (as_it_is, ["smoke", "--format", "h5"], "'h5'", "'savedmodel', 'onnx'"),
    "a missing folder": (as_it_is, ["smoke", "--out", "a/b"], "--out", "make it first"),
    "object storage": (as_it_is, ["smoke", "--out", "s3://b/x"], "--out", "name a folder"),
    "a place that is taken": (occupied, ["smoke"], "--out", "--overwrite"),
    "something else": (occupied, ["smoke", "--overwrite"], "--out", "is not an export"),
    "the run itself": (as_it_is, ["smoke", "--out", "runs", "--overwrite"], "--out", "left alone"),
    "a user's files": (with_notes, ["smoke", "--overwrite"], "--out", "notes.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case, finished_run, tmp_path, monkeypatch, capsys):
    prepare, arguments, where, why = BAD[case]
    shutil.copytree(finished_run, tmp_path / "runs/smoke")
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run_command(["export", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert where in line
    assert why in line
    assert tree(tmp_path) == before


def test_a_missing_library_is_named(finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert run_command(["export", str(finished_run), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --format 'onnx': needs tf2onnx, which is not installed")
    assert "make venv EXTRAS=export" in line
    assert not any(tmp_path.iterdir())


def test_overwrite_replaces_an_earlier_export(exported, finished_run, tmp_path):
    target = Path(shutil.copytree(exported[0], tmp_path / "out"))
    export_run(open_run(str(finished_run)), ["onnx"], target, overwrite=True)
    assert {p.name for p in target.iterdir()} == {"README.md", "export.json", "model.onnx"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_run_in_object_storage(finished_run, exported, s3, tmp_path):
    place = open_storage(s3).at("smoke")
    for path, content in tree(finished_run).items():
        if not path.endswith("/"):
            place.write(path, content)
    document = export_run(open_run("smoke", s3), ["onnx"], tmp_path / "out")
    kept = json.loads((exported[0] / "export.json").read_text())
    here, there = (one["formats"]["onnx"] for one in (document, kept))
    # Another process, with other threads within operations, rounds otherwise.
    assert here.pop("largest_difference") == pytest.approx(
        there.pop("largest_difference"), abs=1e-6
    )
    assert here == there


def test_a_run_in_another_precision_is_compared_in_float32(tmp_path, mnist):
    few = {"limit_train": 200, "epochs": 1, "model": "ffnn", "precision": "mixed_bfloat16"}
    run, progress = prepare_run({**few, "storage": str(tmp_path), "name": "r"}), PlainProgress()
    with training_session(run, progress) as (run, examples):
        train_and_evaluate(run, examples, progress)
    document = export_run(open_run("r", str(tmp_path)), ["onnx"], tmp_path / "out")
    assert document["trained_in"] == "mixed_bfloat16"
    assert "trained and measured in mixed" in (tmp_path / "out/README.md").read_text()
