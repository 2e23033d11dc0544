"""Bad input: one line that names what is wrong and the fix, exit code 2, nothing written."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from job.data.catalogue import CATALOGUE
from tests.kit.commands import lines_of, tree

TRAIN = {
    "unknown model": (["--model", "lenet6"], "--model 'lenet6'", "did you mean 'lenet5'"),
    "unknown data set": (["--dataset", "mnst"], "--dataset 'mnst'", "did you mean 'mnist'"),
    "unknown optimizer": (["--optimizer", "adm"], "--optimizer 'adm'", "did you mean 'adam'"),
    "unknown schedule": (["--schedule", "linear"], "--schedule 'linear'", "choose one of"),
    "unknown precision": (["--precision", "float8"], "--precision 'float8'", "choose one of"),
    "unknown recipe": (["--recipe", "cake"], "--recipe 'cake'", "choose one of"),
    "zero epochs": (["--epochs", "0"], "--epochs '0'", "between 1 and"),
    "negative epochs": (["--epochs", "-3"], "--epochs '-3'", "between 1 and"),
    "epochs in words": (["--epochs", "ten"], "--epochs 'ten'", "not a whole number"),
    "epochs with a fraction": (["--epochs", "2.5"], "--epochs '2.5'", "not a whole number"),
    "huge epochs": (["--epochs", "9" * 30], "--epochs", "between 1 and"),
    "zero batch": (["--batch-size", "0"], "--batch-size '0'", "between 1 and"),
    "negative batch": (["--batch-size", "-32"], "--batch-size '-32'", "between 1 and"),
    "learning rate 0": (["--learning-rate", "0"], "--learning-rate '0'", "greater than 0"),
    "learning rate below 0": (["--learning-rate", "-1"], "--learning-rate '-1'", "greater than 0"),
    "learning rate in words": (["--learning-rate", "abc"], "--learning-rate 'abc'", "not a number"),
    "learning rate nan": (["--learning-rate", "nan"], "--learning-rate 'nan'", "finite"),
    "learning rate inf": (["--learning-rate", "inf"], "--learning-rate 'inf'", "finite"),
    "negative weight decay": (["--weight-decay", "-0.1"], "--weight-decay '-0.1'", "at least 0"),
    "negative seed": (["--seed", "-1"], "--seed '-1'", "between 0 and"),
    "no training rows": (["--limit-train", "0"], "--limit-train '0'", "between 1 and"),
    "too many training rows": (["--limit-train", "48001"], "--limit-train '48001'", "48,000"),
    "zero patience": (["--patience", "0"], "--patience '0'", "between 1 and"),
    "checkpoints never": (["--checkpoint-every", "0"], "--checkpoint-every '0'", "such as 30s"),
    "checkpoints in minutes": (["--checkpoint-every", "5m"], "--checkpoint-every", "such as 30s"),
    "name with a slash": (["--name", "a/b"], "--name 'a/b'", "letters, digits"),
    "name that climbs": (["--name", ".."], "--name '..'", "letters, digits"),
    "name with dots": (["--name", "a..b"], "--name 'a..b'", "without '..'"),
    "empty name": (["--name", ""], "--name ''", "letters, digits"),
    "storage with a name too long": (["--storage", "x" * 300], "--storage", "can't be read"),
    "empty storage": (["--storage", " "], "--storage ' '", "not be empty"),
    "unknown storage": (["--storage", "ftp://host/x"], "--storage", "name a local folder or s3:"),
    "storage that was a path once": (
        ["--storage", "s3:/bucket/x"],
        "--storage 's3:/bucket/x'",
        "did you mean s3://bucket/x?",
    ),
    "data without slashes": (["--data", "s3:bucket"], "--data 's3:bucket'", "s3://bucket?"),
    "storage below a file": (["--storage", "a-file/runs"], "--storage", "can't be written"),
    "missing data folder": (["--data", "nowhere"], "/nowhere'", "no such folder"),
    "data folder without data": (["--data", "empty"], "--data", "has no train-images"),
    "two GPUs for a worker": (
        ["--gpus-per-worker", "2"],
        "--gpus-per-worker '2'",
        "at most 1: a worker computes on one GPU",
    ),
    "XLA and max pooling": (
        ["--xla", "--model", "alexnet", "--device", "gpu"],
        "--xla",
        "take --no-deterministic or --no-xla",
    ),
    "a model without a function": (["--model", "net.py"], "--model 'net.py'", "FILE.py:FUNCTION"),
    "a model that is not there": (["--model", "no.py:f"], "--model 'no.py:f'", "there is no no.py"),
    "output of a built-in model": (["--output", "logits"], "--output 'logits'", "is built in"),
    "own model and the notebook's recipe": (
        ["--model", "net.py:f", "--recipe", "notebook"],
        "--model",
        "there is no net.py",
    ),
    "freeze with a space": (["--freeze", "a b"], "--freeze 'a b'", "such as 'CONV*'"),
    "weights of no run": (["--start-from", "nowhere"], "--start-from 'nowhere'", "no run in"),
    "unknown flag": (["--epoch", "3"], "No such option", "--epochs"),
    "flag without value": (["--epochs"], "--epochs", "argument"),
    "stray word": (["lenet5"], "lenet5", "unexpected extra argument"),
}


def refused(lenet, folder: Path, *arguments: object) -> str:
    """Runs a command that must be refused; returns its one line of complaint."""
    before = tree(folder)
    done = lenet(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(lines_of(done.stderr)) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert tree(folder) == before, "something was left behind"
    return done.stderr


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses(case, lenet, tmp_path, mnist):
    (tmp_path / "a-file").write_text("not a folder")
    (tmp_path / "empty").mkdir()
    arguments, where, why = TRAIN[case]
    line = refused(lenet, tmp_path, "train", *arguments)
    assert where in line
    assert why in line


@pytest.fixture
def data_folder(tmp_path, mnist) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in mnist.items():
        (folder / name).write_bytes(content)
    return folder


IMAGES, LABELS = (file.name for file in CATALOGUE["mnist"].files[:2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8] + (27).to_bytes(4, "big") + path.read_bytes()[12:])


def truncated_gzip(path: Path) -> None:
    Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), 1)[:-1000])
    path.unlink()


DAMAGE = {
    "one flipped bit": (LABELS, flip, "SHA-256"),
    "truncated": (IMAGES, lambda p: p.write_bytes(p.read_bytes()[:-5]), "bytes, expected"),
    "too long": (LABELS, lambda p: p.write_bytes(p.read_bytes() + b"x"), "bytes, expected"),
    "wrong shape": (IMAGES, other_shape, "shape (60000, 27, 28)"),
    "not IDX": (LABELS, lambda p: p.write_bytes(b"<html>"), "not an IDX file"),
    "empty": (LABELS, lambda p: p.write_bytes(b""), "not an IDX file"),
    "missing": (LABELS, Path.unlink, "has no train-labels"),
    "truncated gzip": (LABELS, truncated_gzip, "gzip"),
    "a gzip bomb": (
        LABELS,
        lambda p: (Path(f"{p}.gz").write_bytes(gzip.compress(bytes(10**6))), p.unlink()),
        "more than the expected",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_train_refuses_damaged_data(case, lenet, tmp_path, data_folder):
    name, damage, why = DAMAGE[case]
    damage(data_folder / name)
    line = refused(lenet, tmp_path, "train", "--data", data_folder)
    assert name in line
    assert why in line


def test_train_refuses_other_data(lenet, tmp_path, data_folder):
    line = refused(lenet, tmp_path, "train", "--data", data_folder, "--dataset", "fashion-mnist")
    assert "published fashion-mnist" in line


class Boom:
    """Would run a command if it were unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_train_refuses_npz_with_pickled_objects(lenet, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    evil = np.array([Boom()], dtype=object)
    np.savez(folder / "mnist.npz", x_train=evil, y_train=evil, x_test=evil, y_test=evil)
    line = refused(lenet, tmp_path, "train", "--data", folder)
    assert "pickles are never read" in line
    assert not (tmp_path / "pwned").exists()


HOSTILE_MEMBERS = {
    "another shape": np.zeros((3, 28, 28), np.uint8),
    "fractions": np.zeros((60_000, 28, 28), np.float16),
    "records": np.zeros(5, dtype=[("a", "u1"), ("b", "u1")]),
    # A header that promises an exabyte.
    "a bomb": np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (2**20,) * 3, (0,) * 3),
}


@pytest.mark.parametrize("case", HOSTILE_MEMBERS)
def test_train_refuses_npz_with_other_arrays(case, lenet, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, np.lib.format.header_data_from_array_1_0(HOSTILE_MEMBERS[case])
    )
    with zipfile.ZipFile(folder / "mnist.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    line = refused(lenet, tmp_path, "train", "--data", folder)
    assert "mnist.npz" in line
    assert "holds" in line


@pytest.fixture
def own_run(finished_run, tmp_path) -> Path:
    """A copy of the finished run, at the place where `lenet` looks for it."""
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / "smoke"))


def test_train_refuses_a_finished_run(lenet, tmp_path, own_run):
    assert "--overwrite" in refused(lenet, tmp_path, "train", "--name", "smoke")


def test_train_refuses_to_continue_as_another_model(lenet, tmp_path, own_run):
    (own_run / "result.json").unlink()
    line = refused(lenet, tmp_path, "train", "--name", "smoke", "--model", "ffnn")
    assert "--model 'ffnn'" in line
    assert "'lenet5'" in line


def test_train_refuses_a_folder_that_is_no_run(lenet, tmp_path):
    (tmp_path / "runs" / "notes").mkdir(parents=True)
    (tmp_path / "runs" / "notes" / "todo.txt").write_text("mine")
    for extra in ((), ("--overwrite",)):
        assert "holds no run" in refused(lenet, tmp_path, "train", "--name", "notes", *extra)


@pytest.mark.parametrize("action", ["evaluate", "predict"])
def test_missing_run(action, lenet, tmp_path):
    extra = ["picture.png"] if action == "predict" else []
    assert "no run in runs/nothing" in refused(lenet, tmp_path, action, "nothing", *extra)
    assert "no run in" in refused(lenet, tmp_path, action, "./nothing", *extra)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").touch()
    assert "no run in runs/myne; did you mean 'mine'?" in refused(
        *(lenet, tmp_path, action, "myne", *extra)
    )


NO_CONFIGS = ["{", "[]", "null", '{"config": {}, "created": 1}', "[" * 100_000, "\x00"]


@pytest.mark.parametrize("content", NO_CONFIGS)
def test_damaged_config(lenet, tmp_path, own_run, content):
    (own_run / "config.json").write_text(content)
    assert "config.json can't be read" in refused(lenet, tmp_path, "evaluate", "smoke")


def test_config_with_unusable_settings_names_the_file(lenet, tmp_path, own_run):
    document = json.loads((own_run / "config.json").read_text())
    document["config"]["epochs"] = "abc"
    (own_run / "config.json").write_text(json.dumps(document))
    line = refused(lenet, tmp_path, "evaluate", "smoke")
    assert "config.json can't be read (--epochs 'abc'" in line


def test_evaluate_before_the_first_epoch(lenet, tmp_path, own_run):
    shutil.rmtree(own_run / "checkpoints")
    assert "no finished epoch" in refused(lenet, tmp_path, "evaluate", "smoke")


def test_pictures_that_are_none(lenet, tmp_path, own_run):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes((own_run / "figures/first_ten.png").read_bytes()[:2000])
    (tmp_path / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("comment", "x" * 5_000_000, zip=True)
    Image.new("L", (9, 9)).save(tmp_path / "bomb.png", pnginfo=bomb)
    for name in ("text.png", "cut.png", "picture.svg", "bomb.png"):
        line = refused(lenet, tmp_path, "predict", "smoke", name)
        assert f"INPUT '{name}'" in line
        assert "not a whole PNG or JPEG" in line
    assert "can't be read (File name too long)" in refused(
        lenet, tmp_path, "predict", "smoke", "x" * 300
    )
    assert "no such file" in refused(lenet, tmp_path, "predict", "smoke", "missing.png")
    assert "Missing argument" in refused(lenet, tmp_path, "predict", "smoke")


PLACES = {
    "nobody's home": (
        ["runs", "--storage", "~nobody-here/x"],
        "--storage '~nobody-here/x'",
        "home",
    ),
    "nobody's run": (["evaluate", "~nobody-here/x"], "RUN '~nobody-here/x'", "no such home folder"),
    "a run on the web": (
        ["evaluate", "http://x/y"],
        "RUN 'http://x/y'",
        "name a local folder or s3",
    ),
    "runs in a file": (["runs", "--storage", "a-file"], "--storage 'a-file'", "Not a directory"),
    "a long name of data": (["train", "--data", "x" * 300], "--data", "File name too long"),
    "a table in a file": (
        ["predict", "smoke", "p.png", "--out", "a.csv/"],
        "--out 'a.csv/'",
        "can't",
    ),
    "a table of a long name": (
        ["predict", "smoke", "p.png", "--out", f"{'x' * 300}.csv"],
        "--out",
        "can't be written (File name too long)",
    ),
    "a report to a file": (["report", "smoke", "--out", "a-file"], "--out 'a-file'", "can't be"),
    "a long name of a cluster's file": (
        ["doctor", "--cluster-file", "x" * 300],
        "--cluster-file",
        "no such file",
    ),
    "pictures too large": (
        ["models", "lenet5", "--image-shape", "9999x9999x1"],
        "--image-shape '9999x9999x1'",
        "each up to 128",
    ),
    "no model": (["models", ""], "--model ''", "choose one of"),
    "a folder for a module": (["evaluate", "smoke", "--model", "a:f"], "--model 'a:f'", "no a in"),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_are_none(case, lenet, tmp_path, own_run):
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "a").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "p.png")
    arguments, where, why = PLACES[case]
    line = refused(lenet, tmp_path, *arguments)
    assert where in line
    assert why in line


def test_an_export_to_a_link_to_itself(lenet, tmp_path, own_run):
    (tmp_path / "loop").symlink_to("loop")
    done = lenet("export", "smoke", "--out", "loop", cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: --out '{tmp_path / 'loop'}': exists; name another" in done.stderr


def test_a_value_of_any_length_is_one_short_line(lenet, tmp_path):
    line = refused(lenet, tmp_path, "train", "--epochs", "9" * 6000)
    assert line.startswith("error: --epochs '999")
    assert line.endswith("…': not a whole number\n")
    assert len(line) < 400


def test_unknown_data_set_and_command(lenet, tmp_path):
    assert "did you mean 'mnist'" in refused(lenet, tmp_path, "data", "show", "minst")
    assert "No such command 'trian'; did you mean 'train'?" in refused(lenet, tmp_path, "trian")
    assert "No such command 'x'; `lenet --help` lists them" in refused(lenet, tmp_path, "x")
