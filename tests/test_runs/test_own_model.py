"""A run of the user's own model: its source is needed once, and never again."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from job.config.fields import typed  # noqa: E402
from job.errors import InputError, JobError, StopRequestedError  # noqa: E402
from job.runs.run import open_run, prepare_run  # noqa: E402
from job.train import train_and_evaluate, training_session  # noqa: E402
from job.training.progress import Silent  # noqa: E402
from job.training.supervisor import Unsupervised  # noqa: E402
from tests.kit.commands import command, environment, lines_of, result_of  # noqa: E402

pytestmark = pytest.mark.minutes

NETS = Path(__file__).parents[1] / "test_models" / "nets.py"
DIGITS = Path(__file__).parent / "kept" / "digits"
SETTINGS: dict[str, Any] = {
    **{"dataset": "own", "data": str(DIGITS), "epochs": 2, "batch_size": 24, "seed": 3},
    "learning_rate": 0.01,
}
WORDS = [word for k, v in SETTINGS.items() for word in typed(k, v)]


def train(folder: Path, name: str, stop: Callable[[], int] = lambda: 0, **more: Any) -> dict:
    run = prepare_run({**SETTINGS, "storage": str(folder), "name": name, **more})
    with training_session(run, Silent()) as (run, examples):
        result = train_and_evaluate(run, examples, Silent(), Unsupervised(stop))
    assert result is not None
    return result


@pytest.fixture
def source(tmp_path) -> Path:
    """A user's file, which a test may edit or delete."""
    return Path(shutil.copy(NETS, tmp_path / "nets.py"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lenet) -> Path:
    """A run of `residual` that nothing disturbed, and whose source is gone."""
    folder = tmp_path_factory.mktemp("whole")
    file = Path(shutil.copy(NETS, folder / "nets.py"))
    done = lenet("train", "--model", "nets.py:residual", *WORDS, "--name", "r", cwd=folder)
    assert done.returncode == 0, done.stderr
    file.unlink()
    return folder / "runs" / "r"


def test_a_run_keeps_what_its_model_is(whole):
    kept = json.loads((whole / "config.json").read_text())["config"]
    assert kept["model"] == "nets.py:residual"
    result = result_of(whole)
    assert result["model"] == "nets.py:residual"
    assert result["val_accuracy"] > 2 * result["baseline_accuracy"]
    assert result["noise_by_worker"] == ["GaussianNoise"]
    card = (whole / "README.md").read_text()
    assert "The noise of GaussianNoise layers" in card
    assert kept["model_sha256"] in card
    assert kept["architecture_sha256"] in card


def test_killed_and_without_its_source_it_ends_with_the_same_bits(whole, source, lenet, tmp_path):
    words = ("train", "--model", "nets.py:residual", *WORDS, "--name", "r")
    index = tmp_path / "runs" / "r" / "checkpoints" / "index.json"
    process = subprocess.Popen(
        command(*words, "--checkpoint-every", 3),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    # Whoever claims the run writes one without a checkpoint.
    while not index.exists() or '"step"' not in index.read_text():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (tmp_path / "runs" / "r" / "result.json").exists()
    source.unlink()
    done = lenet("train", "--name", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing r at step" in done.stderr
    for key in ("weights_sha256", "best_weights_sha256", "test_accuracy"):
        assert result_of(tmp_path / "runs" / "r")[key] == result_of(whole)[key]


def test_parts_of_ones_own_need_the_file_again(source, lenet, tmp_path):
    """Layers and an activation that the file defines: code is not kept with a run."""
    model = f"{source}:own_parts"
    undisturbed = train(tmp_path, "whole", model=model)
    assert undisturbed["own_parts"] == ["Scale", "Shaken", "squared"]
    asked = iter((0, signal.SIGINT))
    with pytest.raises(StopRequestedError):
        train(tmp_path, "r", lambda: next(asked, signal.SIGINT), model=model)
    named = {"name": "r", "storage": str(tmp_path)}
    without = r"run 'r' has parts that your file defines \(Scale, .*give --model FILE\.py:FUNCTION"
    with pytest.raises(InputError, match=without):
        prepare_run(named)
    resumed = train(tmp_path, "r", model=model)
    for key in ("weights_sha256", "best_weights_sha256", "test_accuracy"):
        assert resumed[key] == undisturbed[key]

    file = str(tmp_path / "whole" / "model.keras")
    further = train(tmp_path, "further", model=model, start_from=file, learning_rate=1e-9, epochs=1)
    assert further["val_loss"] == pytest.approx(undisturbed["val_loss"], rel=1e-3)

    done = lenet("evaluate", tmp_path / "r", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = lines_of(done.stderr)
    assert line.startswith("error: --model 'nets.py:own_parts': run 'r' has parts that")
    done = lenet("evaluate", tmp_path / "r", "--model", model, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == resumed["test_accuracy"]
    exported = ("export", tmp_path / "r", "--model", model, "--format", "savedmodel")
    done = lenet(*exported, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        'custom_objects={"Scale": Scale, "Shaken": Shaken, '
        in (tmp_path / "r" / "README.md").read_text()
    )
    source.write_text(source.read_text() + "\n")
    with pytest.raises(InputError, match="is not as it was when run 'r' was started"):
        open_run("r", str(tmp_path)).with_source(model)


def test_an_edited_source_is_another_model(source, tmp_path):
    asked = iter((0, signal.SIGINT))
    with pytest.raises(StopRequestedError):
        train(tmp_path, "r", lambda: next(asked, signal.SIGINT), model=f"{source}:plain")
    prepare_run({"name": "r", "storage": str(tmp_path), "model": f"{source}:plain"})
    source.write_text(source.read_text() + "\n")
    with pytest.raises(InputError, match=r"is not as it was when run 'r' was started"):
        prepare_run({"name": "r", "storage": str(tmp_path), "model": f"{source}:plain"})
    with pytest.raises(InputError, match=r"run 'r' was started with 'nets.py:plain'"):
        prepare_run({"name": "r", "storage": str(tmp_path), "model": f"{source}:residual"})
    prepare_run({"name": "r", "storage": str(tmp_path)})


@pytest.mark.parametrize("spoil", ["missing", "another"])
def test_an_architecture_that_was_spoilt_is_not_built(spoil, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "r")
    file = tmp_path / "r" / "architecture.json"
    if spoil == "missing":
        file.unlink()
    else:
        file.write_text(file.read_text().replace('"filters": 8', '"filters": 9'))
    with pytest.raises(JobError, match=r"architecture\.json is"):
        _ = open_run("r", str(tmp_path)).architecture


def test_nothing_is_written_for_a_model_that_cannot_be_trained(lenet, tmp_path):
    done = lenet(
        *("train", "--model", f"{NETS}:too_narrow", "--dataset", "own", "--data", DIGITS),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    *said, line = done.stderr.splitlines()
    assert line.startswith(f"error: --model '{NETS}:too_narrow': its model gives 9")
    assert all("this file says" in other for other in said)
    assert not list(tmp_path.iterdir())


def test_what_follows_needs_no_source(whole, lenet, tmp_path):
    evaluated = lenet("evaluate", whole, "--json", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["accuracy"] == result_of(whole)["test_accuracy"]
    exported = lenet("export", whole, "--format", "onnx", "--out", "out", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    image = keras.utils.array_to_img(np.zeros((28, 28, 1)))
    image.save(tmp_path / "black.png")
    predicted = lenet("predict", whole, "black.png", "--json", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr


def test_an_operation_that_onnx_lacks_is_named(lenet, tmp_path):
    train(tmp_path, "r", model=f"{NETS}:erf_inside", epochs=1, limit_train=24)
    run = tmp_path / "r"
    done = lenet("export", run, "--format", "onnx", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: --format onnx: the model has an operation")
    done = lenet("export", run, "--format", "savedmodel", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_model_opens_in_plain_keras(whole):
    model = keras.models.load_model(whole / "model.keras")
    assert model.layers[-1].name == "probabilities"
    assert model.count_params() == result_of(whole)["parameters"]


def test_two_workers_train_it_as_one_does(lenet, tmp_path):
    """Parts of the user's file go to workers with the job.

    With SGD: a bias before a normalisation has a gradient of nothing but rounding, of which Adam
    makes whole steps."""
    for name, where in (
        ("alone", ()),
        ("together", ("--workers", 2, "--cpus-per-worker", 1, "--address", "local")),
    ):
        done = lenet(
            *("train", "--model", f"{NETS}:quiet", *WORDS, "--optimizer", "sgd"),
            *("--name", name, *where),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    alone, together = (
        list(csv.DictReader((tmp_path / "runs" / run / "history.csv").open()))
        for run in ("alone", "together")
    )
    for one, two in zip(alone, together, strict=True):
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-3)
        assert float(two["val_loss"]) == pytest.approx(float(one["val_loss"]), rel=1e-3)
