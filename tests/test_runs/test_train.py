"""Whole runs on real data: what they leave, that they repeat, and that they go on where they
stopped."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from job.engine.runtime import start_tensorflow
from tests.kit.commands import SMOKE, command, environment, lines_of, result_of

start_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from job.config.config import FIELDS  # noqa: E402
from job.config.resolve import resolve  # noqa: E402
from job.engine.optimizers import WarmupCosine  # noqa: E402
from job.errors import InputError, StopRequestedError, TrainingDivergedError  # noqa: E402
from job.runs.run import Reached, Run, open_run, prepare_run  # noqa: E402
from job.train import few_steps, train_and_evaluate, training_session  # noqa: E402
from job.training.progress import PlainProgress  # noqa: E402
from job.training.supervisor import Unsupervised  # noqa: E402

pytestmark = pytest.mark.minutes

SETTINGS = {"limit_train": 1500, "epochs": 2, "batch_size": 32, "seed": 3}


def train(folder: Path, name: str, **more) -> dict:
    """A run in this process."""
    stop = more.pop("stop_requested", lambda: 0)
    return train_run(prepare_run({**SETTINGS, "storage": str(folder), "name": name, **more}), stop)


def train_run(run: Run, stop=lambda: 0) -> dict:
    progress = PlainProgress()
    with training_session(run, progress) as (run, examples):
        return train_and_evaluate(run, examples, progress, Unsupervised(stop))


def test_a_run_of_a_few_pictures_says_what_would_teach_it_more():
    """Three steps of a batch each are what a recipe for 48,000 images makes of 80."""
    said = few_steps(resolve({"dataset": "own", "data": "x"}), 80)
    assert said == (
        "80 rows in batches of 128 make 3 steps, in which little is learned; more: "
        "--batch-size 16 --epochs 80"
    )
    assert (
        few_steps(resolve({"dataset": "own", "data": "x", "epochs": 80, "batch_size": 16}), 80)
        == ""
    )
    assert few_steps(resolve({}), 48_000) == ""
    assert few_steps(resolve({"limit_train": 80}), 80) == ""


def stop_after(spans: int):
    """A stop request that comes after so many spans of steps."""
    calls = 0

    def requested() -> int:
        nonlocal calls
        calls += 1
        return signal.SIGINT if calls > spans else 0

    return requested


@pytest.fixture(scope="module")
def whole(tmp_path_factory, mnist) -> Callable[[str], Path]:
    """The folder of a model's undisturbed run, which is trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    @functools.cache
    def run(model: str) -> Path:
        train(folder, model, model=model)
        return folder / model

    return run


@pytest.mark.parametrize("model", ["lenet5", pytest.param("ffnn", marks=pytest.mark.long)])
def test_equal_seeds_give_equal_bits_and_others_do_not(model, whole, tmp_path):
    first, again = result_of(whole(model)), train(tmp_path, "again", model=model)
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["test_accuracy"] == again["test_accuracy"]
    other = train(tmp_path, "other", model=model, seed=4)
    assert other["weights_sha256"] != first["weights_sha256"]


@pytest.mark.parametrize("model", ["ffnn", pytest.param("lenet5", marks=pytest.mark.long)])
def test_interrupted_anywhere_a_run_ends_with_the_same_bits(model, whole, tmp_path):
    """Stopped in the first epoch, at its end, in the second; each time it goes on."""
    expected = result_of(whole(model))
    for spans in (0, 2, 4):
        name = f"stopped-{spans}"
        with pytest.raises(StopRequestedError) as stopped:
            train(tmp_path, name, model=model, stop_requested=stop_after(spans))
        assert stopped.value.exit_code == 130
        assert f"lenet train --name {name} --storage {tmp_path}" in str(stopped.value)
        assert not (tmp_path / name / "result.json").exists()
        resumed = train(tmp_path, name, model=model)
        for key in ("weights_sha256", "best_weights_sha256", "test_accuracy", "val_loss"):
            assert resumed[key] == expected[key]
        rows = [
            (run / "history.csv").read_text().split() for run in (whole(model), tmp_path / name)
        ]
        losses = [[line.split(",")[1:5] for line in lines] for lines in rows]
        assert losses[0] == losses[1], "the history must not depend on interruptions"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
def test_with_fewer_processors_it_goes_on_to_the_same_bits(tmp_path, lenet, mnist):
    few = ("--limit-train", 500, "--epochs", 1, "--batch-size", 50, "--name", "whole")
    done = lenet("train", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # As if it had been interrupted before its first checkpoint.
    runs = tmp_path / "runs"
    (runs / "begun").mkdir()
    shutil.copy(runs / "whole" / "config.json", runs / "begun")
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        done = lenet("train", "--name", "begun", cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, all_of_them)
    assert done.returncode == 0, done.stderr
    there, here = (result_of(runs / name) for name in ("whole", "begun"))
    assert "1 thread" in here["device"]
    assert here["weights_sha256"] == there["weights_sha256"]


def test_ctrl_c_and_kill_from_outside(finished_run, tmp_path, lenet):
    """The command as a user runs it: Ctrl-C is graceful, SIGKILL loses at most an interval."""
    settings = [*SMOKE, "--checkpoint-every", "20", "--name", "r"]
    index = tmp_path / "runs/r/checkpoints/index.json"
    codes = []
    for number in (signal.SIGINT, signal.SIGKILL):
        before = index.read_text() if index.exists() else ""
        process = subprocess.Popen(
            command("train", *settings), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
        )
        # A new checkpoint shows that training is under way; the run must not finish first.
        while not index.exists() or index.read_text() == before:
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        stderr = process.communicate()[1].decode()
        codes.append(process.returncode)
        if number == signal.SIGINT:
            assert "Traceback" not in stderr
            assert "stopping after a checkpoint" in stderr
            assert "continue with: lenet train --name r" in stderr
    assert codes == [130, -9]
    resumed = lenet("train", "--name", "r", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing r at step" in resumed.stderr
    ours, theirs = result_of(tmp_path / "runs/r"), result_of(finished_run)
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert ours["best_weights_sha256"] == theirs["best_weights_sha256"]


def test_a_corrupt_newest_checkpoint_costs_steps_but_not_the_result(whole, tmp_path, caplog):
    with pytest.raises(StopRequestedError):
        train(tmp_path, "r", checkpoint_every="7", stop_requested=stop_after(4))
    newest = sorted((tmp_path / "r/checkpoints").glob("step-*"))[-1]
    arrays = newest / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"\x55")
    assert train(tmp_path, "r")["weights_sha256"] == result_of(whole("lenet5"))["weights_sha256"]
    assert f"{newest.name}: arrays.safetensors has SHA-256" in caplog.text


def test_a_loss_that_explodes_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, mnist):
    """The warm-up starts at 0, so the first steps are still good."""
    with pytest.raises(TrainingDivergedError, match=r"became .* lower --learning-rate") as error:
        train(tmp_path, "r", model="ffnn", optimizer="sgd", learning_rate=100, checkpoint_every="1")
    state = open_run("r", str(tmp_path)).restore()
    assert f"last saved checkpoint is step {state.step}" in str(error.value)
    assert state.is_finite()
    assert not (tmp_path / "r/result.json").exists()


def test_early_stopping(tmp_path, mnist):
    """With a rate that changes nothing, no epoch after the first is better."""
    result = train(tmp_path, "r", epochs=9, patience=2, learning_rate=1e-30, schedule="constant")
    assert (result["epochs"], result["best_epoch"]) == (3, 1)


def test_the_best_weights_by_accuracy(tmp_path, mnist):
    """Where few rows are fitted too well, and the loss was best before that."""
    given = {"limit_train": 512, "epochs": 6, "model": "ffnn", "schedule": "constant"}
    by = {
        best_by: train(tmp_path, best_by, best_by=best_by, learning_rate=0.003, **given)
        for best_by in ("loss", "accuracy")
    }
    rows = open_run("accuracy", str(tmp_path)).history()
    assert [r.val_loss for r in rows] == [
        r.val_loss for r in open_run("loss", str(tmp_path)).history()
    ]
    assert by["accuracy"]["val_accuracy"] == max(row.val_accuracy for row in rows)
    assert by["loss"]["val_loss"] == min(row.val_loss for row in rows)
    assert by["loss"]["best_epoch"] != by["accuracy"]["best_epoch"]
    state = open_run("accuracy", str(tmp_path)).restore()
    assert state.best == max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))


def test_mixed_precision_trains(tmp_path, mnist):
    result = train(tmp_path, "r", precision="mixed_bfloat16", limit_train=500, epochs=1)
    assert result["precision"] == "mixed_bfloat16"
    assert math.isfinite(result["test_loss"])


def test_result_names_everything(finished_run):
    result = result_of(finished_run)
    assert result.keys() >= {
        *[
            "name",
            "model",
            "dataset",
            "parameters",
            "baseline_accuracy",
            "epochs",
            "best_epoch",
            "val_loss",
        ],
        *["val_accuracy", "test_loss", "test_accuracy", "train_seconds", "images_per_second"],
        *[
            "workers",
            "device",
            "seed",
            "batch_size",
            "optimizer",
            "learning_rate",
            "weights_sha256",
        ],
        *["best_weights_sha256", "versions"],
    }
    assert result["parameters"] == 303_626
    assert 0.0 < result["baseline_accuracy"] < 0.25
    assert result["test_accuracy"] > 0.85
    assert result["versions"]["keras"].startswith("3.")


def test_history_is_the_same_in_every_form(finished_run):
    with (finished_run / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    columns = [
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
        "images_per_second",
        "val_seconds",
    ]
    assert list(rows[0]) == columns
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    table = pyarrow.parquet.read_table(finished_run / "history.parquet").to_pylist()
    assert [{k: float(v) for k, v in row.items()} for row in rows] == table
    for part, prefix in (("train", ""), ("validation", "val_")):
        (events,) = (finished_run / "tensorboard" / part).iterdir()
        found = {
            (value.tag, event.step): value.simple_value
            for event in tf.compat.v1.train.summary_iterator(str(events))
            for value in event.summary.value
        }
        wanted = {
            (f"epoch_{metric}", row["epoch"]): row[f"{prefix}{metric}"]
            for row in table
            for metric in ("loss", "accuracy")
        }
        if part == "train":
            wanted |= {
                ("images_per_second", row["epoch"]): row["images_per_second"] for row in table
            }
            steps = -(-6000 // 32)
            ends = [WarmupCosine(0.05, 2 * steps).rate(n * steps - 1) for n in (1, 2)]
            wanted |= {("learning_rate", i + 1): float(rate) for i, rate in enumerate(ends)}
        wanted = {key: pytest.approx(value, rel=1e-6, abs=1e-7) for key, value in wanted.items()}
        assert found == wanted


def test_tensorboard_compares_settings(finished_run):
    (file,) = (path for path in (finished_run / "tensorboard").iterdir() if path.is_file())
    kinds = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    hyperparameters = {f"_hparams_/{kind}" for kind in ("experiment", "session_start_info")}
    assert kinds >= {*hyperparameters, "best_val_accuracy", "best_val_loss"}


def test_figures_are_pictures(finished_run):
    names = {path.name for path in (finished_run / "figures").iterdir()}
    wanted = "first_ten in_detail history confusion worst_mistakes"
    assert names == {f"{name}.png" for name in wanted.split()}
    for path in (finished_run / "figures").iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
            low, high = image.convert("L").getextrema()
            assert high - low > 100, f"{path.name} is blank"


PLAIN_KERAS = """
import sys
import numpy as np
import keras
model = keras.models.load_model(sys.argv[1])
images = np.load(sys.argv[2]).astype("float32") / 255
labels = np.load(sys.argv[3])
print((model.predict(images, verbose=0).argmax(axis=1) == labels).mean())
assert "job" not in sys.modules
"""


def test_model_file_opens_in_plain_keras_and_predicts_the_same(finished_run, splits, tmp_path):
    test = splits[2]
    np.save(tmp_path / "images.npy", test.images)
    np.save(tmp_path / "labels.npy", test.labels)
    done = subprocess.run(
        [
            *(sys.executable, "-c", PLAIN_KERAS, finished_run / "model.keras"),
            *(tmp_path / "images.npy", tmp_path / "labels.npy"),
        ],
        cwd=tmp_path,
        env=environment(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == result_of(finished_run)["test_accuracy"]


def test_evaluate_repeats_the_result(finished_run, lenet, tmp_path):
    for name, where in (("smoke", ["--storage", finished_run.parent]), (finished_run, [])):
        done = lenet("evaluate", name, *where, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found, result = json.loads(done.stdout), result_of(finished_run)
        assert found["accuracy"] == result["test_accuracy"]
        assert found["loss"] == result["test_loss"]
        assert done.stderr == ""


def test_evaluate_repeats_the_validation_loss(finished_run, lenet, tmp_path):
    done = lenet("evaluate", finished_run, "--split", "validation", "--json", cwd=tmp_path)
    found, result = json.loads(done.stdout), result_of(finished_run)
    assert found["loss"] == pytest.approx(result["val_loss"], rel=1e-6)
    assert found["accuracy"] == result["val_accuracy"]


def test_a_users_keras_json_changes_nothing(finished_run, lenet, tmp_path):
    settings = {"floatx": "float16", "epsilon": 0.001, "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    done = lenet("evaluate", finished_run, "--json", cwd=tmp_path, KERAS_HOME=str(tmp_path))
    assert json.loads(done.stdout)["loss"] == result_of(finished_run)["test_loss"]


@pytest.mark.parametrize("content", ["{", "null", "[1]", "0", '{"best": 1}'])
def test_evaluate_refuses_a_result_that_is_none(finished_run, lenet, tmp_path, content):
    copy = Path(shutil.copytree(finished_run, tmp_path / "runs/smoke"))
    (copy / "result.json").write_text(content)
    done = lenet("evaluate", "smoke", cwd=tmp_path)
    assert done.returncode == 1
    assert "result.json can't be trusted" in done.stderr


COUNTS = '"step": 1, "restarts": 0, "lost_steps": 0'


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "null", '{"step": null}', '{"step": 1e999}', ""),
        *(f'{{{COUNTS}, "devices": {devices}}}' for devices in ("1", "[1]", '[{"x": 1}]')),
    ],
)
def test_unreadable_notes_do_not_stop_a_run(tmp_path, content, caplog):
    run = prepare_run({"storage": str(tmp_path), "name": "r"})
    run.storage.write("reached.json", content.encode())
    assert run.reached() == Reached()
    assert "reached.json can't be read" in caplog.text


def test_a_run_that_a_program_begins_keeps_how_it_is_computed(tmp_path):
    """Nobody asked for XLA, or what it trains on: another attempt must not find out otherwise."""
    run = prepare_run({**SETTINGS, "storage": str(tmp_path), "name": "r"})
    assert run.config.xla is None
    with run.claimed():
        assert open_run("r", str(tmp_path)).config.xla is False


def test_evaluate_refuses_weights_that_are_not_the_results(finished_run, lenet, tmp_path):
    copy = Path(shutil.copytree(finished_run, tmp_path / "runs/smoke"))
    result = {**result_of(copy), "best_weights_sha256": "0" * 64}
    (copy / "result.json").write_text(json.dumps(result))
    done = lenet("evaluate", "smoke", cwd=tmp_path)
    assert done.returncode == 1
    assert "SHA-256 differs" in done.stderr


def test_overwrite_starts_anew(finished_run, tmp_path, mnist):
    copy = Path(shutil.copytree(finished_run, tmp_path / "smoke"))
    (copy / "figures/first_ten.png").write_bytes(b"old")
    run = prepare_run(
        {**SETTINGS, "storage": str(tmp_path), "name": "smoke", "seed": 9}, overwrite=True
    )
    result = train_run(run)
    assert (result["seed"], result["restarts"]) == (9, 0)
    assert (copy / "figures/first_ten.png").read_bytes() != b"old"


def test_fresh_names_never_meet(tmp_path):
    names = [prepare_run({"storage": str(tmp_path)}).config.name for _ in range(50)]
    assert len(set(names)) > 48
    assert all(name.startswith("lenet5-") for name in names)


def test_a_run_has_one_writer(tmp_path, mnist):
    run = prepare_run({**SETTINGS, "storage": str(tmp_path), "name": "r"})
    with run.claimed():
        for again in (run, prepare_run({"storage": str(tmp_path), "name": "r"})):
            with pytest.raises(InputError, match=r"process \d+ on .* is training this run"):
                train_run(again)
    # A new run that was prepared before another took its name.
    with pytest.raises(InputError, match="used this name just now"):
        train_run(run)


def test_a_moved_run_goes_on_where_it_lies(tmp_path, mnist):
    """The storage and data folders in its config are those of another time and place."""
    with pytest.raises(StopRequestedError):
        train(tmp_path / "there", "r", stop_requested=stop_after(1))
    (tmp_path / "there").rename(tmp_path / "here")
    run = prepare_run({"storage": str(tmp_path / "here"), "name": "r"})
    assert run.config.storage == str(tmp_path / "here")
    assert train_run(run)["restarts"] == 1
    assert not (tmp_path / "there").exists()


def test_the_script_for_ray_submit_is_the_same_command(tmp_path):
    script = Path(__file__).parents[2] / "job" / "train.py"
    done = subprocess.run(
        [sys.executable, script, "--epochs", "0"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--epochs '0'" in done.stderr
    done = subprocess.run(
        [sys.executable, script, *SMOKE, "--name", "r", "--limit-train", "500", "--epochs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert result_of(tmp_path / "runs/r")["epochs"] == 1


@pytest.mark.parametrize("script", ["job/train.py", "tuning/sweep.py"])
def test_the_scripts_say_in_one_line_that_nothing_is_installed(script, tmp_path):
    """`-S` leaves out what is installed."""
    door = Path(__file__).parents[2] / script
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", door], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: lenet is not installed here; `make venv` installs it\n"


def test_output_is_plain_and_free_of_framework_noise(finished_run, lenet, tmp_path):
    done = lenet("train", *SMOKE, "--limit-train", "500", "--name", "r", cwd=tmp_path)
    lines = lines_of(done.stderr)
    assert lines[0].startswith("r: lenet5 on mnist, 2 epochs, batch 32")
    assert [line.split()[:2] for line in lines[1:]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "test accuracy" in done.stdout
    assert "model.keras" in done.stdout


def test_help_needs_no_tensorflow():
    script = (
        "import sys\n"
        "from tuning.cli import run_command\n"
        "assert run_command(['train', '--help']) == 0\n"
        "assert not {'tensorflow', 'keras', 'ray', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, field in FIELDS.items():
        assert (f"--{name.replace('_', '-')}" in done.stdout) != field.metadata["hidden"]


def test_keras_stays_keras_3():
    assert keras.__version__.startswith("3.")
    assert "tf_keras" not in sys.modules


def test_keras_comes_without_what_it_only_likes_to_have():
    """Which is a third of the time of its import; whoever needs it later gets it."""
    script = (
        "import sys\n"
        "from job.engine.runtime import import_tensorflow\n"
        "import_tensorflow()\n"
        "import job.engine.engine, job.results.result\n"
        "assert not {'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "import matplotlib.figure, pandas, sklearn.svm\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_tensorflow_says_later_is_not_lost():
    """Its logger is made while stderr is held back; what only warns is for whoever asks for it."""
    script = (
        "from job.engine.runtime import start_tensorflow\n"
        "start_tensorflow()\n"
        "import tensorflow as tf\n"
        "tf.get_logger().warning('of no use')\n"
        "tf.get_logger().error('an error')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "ERROR:tensorflow:an error\n"
