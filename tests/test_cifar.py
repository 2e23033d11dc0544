"""CIFAR-10 in both of its published versions, and what else could be in their place."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import http.server
import os
import pickle
import re
import shutil
import threading
import warnings
from pathlib import Path

import cifar_files
import numpy as np
import pytest
from cifar_files import ROWS, batch, python2_batch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_train import train

from job.data import cifar
from job.data import sources as download
from job.data.cache import cache_folder
from job.data.catalogue import CATALOGUE, Split, check_file, test_split, training_splits
from job.data.examples import open_examples, stage
from job.data.parquet import write_dataset
from job.data.pickled import parse, parse_batch
from job.data.sources import cached, obtain
from job.engine.scoring import predict
from job.errors import InputError, JobError
from job.results.evaluate import model_with
from job.results.predict import read_examples
from job.runs.data import dataset_of
from job.runs.run import open_run, prepare_run
from job.storage.base import LocalStorage
from tuning.trials.warm import WarmProcess

PUBLISHED = CATALOGUE["cifar10"]
FIRST = python2_batch(*batch(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return folder, *cifar_files.write(folder)


@pytest.fixture
def published(files, tmp_path, monkeypatch) -> Path:
    """A folder with both versions, small and as if they were those of the authors, on a machine
    that has them nowhere else and no way out."""
    folder, dataset, archives, _ = files
    monkeypatch.setitem(CATALOGUE, "cifar10", dataset)
    monkeypatch.setattr(cifar, "ARCHIVES", archives)
    monkeypatch.setitem(download.MIRRORS, "cifar10", ())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    return Path(shutil.copytree(folder, tmp_path / "published"))


@pytest.fixture
def batches(files) -> dict[str, bytes]:
    return files[3]


def test_the_pins_are_of_what_the_authors_describe():
    """https://www.cs.toronto.edu/~kriz/cifar.html: each file has 30,730,000 bytes."""
    assert [file.name for file in PUBLISHED.train_files] == [
        f"data_batch_{n}.bin" for n in range(1, 6)
    ]
    assert [file.name for file in PUBLISHED.test_files] == ["test_batch.bin"]
    assert {file.size for file in PUBLISHED.files} == {30_730_000}
    pins = [file.sha256 for file in (*PUBLISHED.files, *cifar.ARCHIVES.values())]
    assert len(set(pins)) == 8
    assert all(re.fullmatch("[0-9a-f]{64}", pin) for pin in pins)
    with pytest.raises(ValueError, match="SHA-256 is"):
        check_file(PUBLISHED.files[0], bytes(30_730_000))


@pytest.mark.parametrize(
    "place",
    [
        *("cifar-10-batches-bin", "cifar-10-batches-py"),
        *("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    ],
)
def test_either_version_as_folder_or_archive_is_the_same(place, published, batches):
    assert obtain("cifar10", str(published / place)) == batches
    # And in a folder that holds only it.
    alone = published / "alone"
    alone.mkdir()
    (published / place).rename(alone / place)
    assert obtain("cifar10", str(alone)) == batches


def test_pixels_labels_and_splits(published):
    """`<1 x label><3072 x pixel>`: 1,024 red values, then green, then blue, rows from the top."""
    contents = obtain("cifar10", str(published))
    dataset = CATALOGUE["cifar10"]
    assert dataset.image_shape == (32, 32, 3)
    train, validation = training_splits(contents, dataset)
    test = test_split(contents, dataset)
    assert (len(train), len(validation), len(test)) == (160, 40, 40)
    assert train.images.dtype == np.uint8
    # The last fifth validates: batch 5. Row 3 of batch 2 is row 43.
    for split, row, number in ((train, 43, 1), (validation, 3, 4), (test, 3, 5)):
        labels, planes = batch(number)
        assert split.images.shape[1:] == (32, 32, 3)
        assert split.labels[row] == labels[3]
        assert split.images[row, 5, 9, 0] == planes[3, 5 * 32 + 9]
        assert split.images[row, 5, 9, 2] == planes[3, 2 * 1024 + 5 * 32 + 9]


def test_found_where_keras_left_it_and_cached(published, batches, tmp_path):
    with pytest.raises(JobError) as failure:
        obtain("cifar10")
    assert "put cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or what" in str(failure.value)
    place = tmp_path / "home/.keras/datasets/cifar-10-batches-py-target/cifar-10-batches-py"
    shutil.copytree(published / "cifar-10-batches-py", place)
    assert obtain("cifar10") == batches
    shutil.rmtree(tmp_path / "home/.keras")
    assert cached("cifar10").contents == batches
    cache = tmp_path / "home/.cache/lenet-on-ray/cifar10"
    assert sorted(os.listdir(cache)) == sorted(batches)
    (cache / "test_batch.bin").write_bytes(bytes(len(batches["test_batch.bin"])))
    assert "test_batch.bin SHA-256" in cached("cifar10").problem


def test_an_archive_comes_from_a_mirror(published, batches, monkeypatch):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(published))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(
            download.MIRRORS,
            "cifar10",
            (f"{url}/cifar-10-binary.tar.gz", f"{url}/cifar-10-python.tar.gz"),
        )
        spoilt = published / "cifar-10-binary.tar.gz"
        spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
        # The first is spoilt and not used; the second is.
        assert obtain("cifar10") == batches
        shutil.rmtree(cache_folder("cifar10"))
        first, *others = CATALOGUE["cifar10"].files
        files = (first._replace(sha256="0" * 64), *others)
        monkeypatch.setitem(
            CATALOGUE, "cifar10", dataclasses.replace(CATALOGUE["cifar10"], files=files)
        )
        # Nor is what a good archive holds, if it is not what is wanted.
        with pytest.raises(JobError, match=r"python\.tar\.gz: data_batch_1\.bin: SHA-256 is"):
            obtain("cifar10")
        server.shutdown()
        thread.join()


def damaged(name: str, change):
    def damage(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return path.parent

    return damage


def bomb(folder: Path) -> Path:
    """As long as the published one, so that its length does not give it away."""
    size = cifar.ARCHIVES["cifar-10-binary.tar.gz"].size
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(bytes(10**9 // 20)).ljust(size, b"\0")[:size])
    return path


BIN, PY = "cifar-10-batches-bin/data_batch_2.bin", "cifar-10-batches-py/data_batch_2"
DAMAGE = {
    "a flipped bit": (damaged(BIN, lambda c: c[:-1] + b"\xff"), "data_batch_2.bin SHA-256"),
    "a batch cut short": (damaged(BIN, lambda c: c[:-1]), "122,919 bytes, expected 122,920"),
    "a batch too long": (damaged(BIN, lambda c: c + b"x"), "122,921 bytes, expected 122,920"),
    "another pixel in a pickle": (
        damaged(PY, lambda c: c.replace(batch(1)[1].tobytes()[:9], bytes(9))),
        "data_batch_2.bin SHA-256",
    ),
    "a pickle cut short": (damaged(PY, lambda c: c[:-1000]), "cifar-10-batches-py/data_batch_2: "),
    "a pickle too long": (
        damaged(PY, lambda c: c + bytes(10**6)),
        "cifar-10-batches-py/data_batch_2: holds more than",
    ),
    "a missing batch": (
        lambda folder: (folder / PY).unlink() or (folder / PY).parent,
        "has no data_batch_2.bin (also tried data_batch_2)",
    ),
    "nothing": (lambda folder: folder.parent, "has no data_batch_1.bin (also tried data_batch_1, "),
    "another archive": (
        lambda folder: (folder / BIN).parent / "readme.html",
        "readme.html has 6 bytes, which no published archive has",
    ),
    "a bomb in an archive": (bomb, "cifar-10-binary.tar.gz: is not as published: SHA-256 is"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_as_published_is_refused(case, published):
    damage, why = DAMAGE[case]
    place = damage(published)
    with pytest.raises(InputError) as refusal:
        obtain("cifar10", str(place))
    message = str(refusal.value)
    assert message.startswith("--data: ")
    assert why in message
    assert message.endswith("it must be the published cifar10")
    assert len(message.splitlines()) == 1


def test_the_pickles_made_here_are_pickles():
    """The oracle: Python's own unpickler reads them, and finds what is read without it."""
    # The second says that its pixels go by columns.
    for content in (FIRST, FIRST.replace(b"b\x89T", b"b\x88T")):
        with warnings.catch_warnings():
            # NumPy 2 has moved the module that the files of 2009 name.
            warnings.simplefilter("ignore")
            theirs = pickle.loads(content, encoding="bytes")
        planes, labels = parse_batch(content, ROWS, 3072)
        assert np.array_equal(planes, theirs[b"data"])
        assert labels.tolist() == theirs[b"labels"]
        assert len(theirs[b"filenames"]) == ROWS
    assert parse(FIRST)["batch_label"] == "training batch 1 of 5"


class Boom:
    def __reduce__(self):
        return (os.mkdir, ("pwned",))


def array_of(values: np.ndarray) -> bytes:
    return python2_batch(batch(0)[0], values)


LOOP = b"\x80\x02}q\x00(U\x04dataq\x01h\x00U\x06labelsq\x02h\x00u."
HOSTILE = {
    **{f"a call, protocol {n}": (pickle.dumps(Boom(), protocol=n), "never") for n in range(6)},
    "a call by the second name": (
        FIRST.replace(b"cnumpy\nndarray\n", b"cposix\nsystem\n"),
        "names 'posix.system', which is never called",
    ),
    "a call in one instruction": (b"(iposix\nsystem\n.", "the instruction INST"),
    "a class": (b"(cnumpy\nndarray\no.", "the instruction OBJ"),
    "text of Python": (b"S'true'\n.", "the instruction STRING"),
    "a name with a long tail": (b"cos\n" + b"x" * 10**6 + b"\n.", "names 'os.xxx"),
    "something kept elsewhere": (b"U\x01aQ.", "the instruction BINPERSID"),
    "an extension": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "a call of what is no name": (b"\x80\x02U\x01aK\x01\x85R.", "REDUCE (TypeError('not a call'))"),
    "state of what is no object": (b"\x80\x02]K\x01b.", "BUILD"),
    "an empty stack": (b"\x80\x02\x86.", "TUPLE2 (IndexError"),
    "no mark": (b"\x80\x02]e.", "APPENDS (IndexError"),
    "an empty memo": (b"\x80\x02h\x07.", "BINGET (KeyError"),
    "an odd number of items": (b"\x80\x02}(K\x01u.", "dictionary of names"),
    "a key without a value": (b"\x80\x02}(U\x01au.", "shorter"),
    "items of a number": (b"\x80\x02K\x01(U\x01aK\x01u.", "dictionary of names"),
    "more than one thing": (b"\x80\x02K\x01K\x02.", "leaves other than one thing"),
    "no end": (b"\x80\x02", "pickle exhausted"),
    "nothing": (b"", "pickle exhausted"),
    "a number": (b"\x80\x02K\x01.", "holds no data and labels"),
    "a dictionary of itself": (LOOP, "labels is not a list of 40"),
    "objects": (array_of(batch(0)[1]).replace(b"U\x02u1", b"U\x02O8"), "not made of bytes"),
    "wide numbers": (array_of(batch(0)[1].astype(np.uint16)), "not made of bytes"),
    "another width": (array_of(batch(0)[1][:, :3000]), "not of shape (40, 3072)"),
    "fewer rows": (array_of(batch(0)[1][:39]), "not of shape (40, 3072)"),
    "fewer labels": (python2_batch(batch(0)[0][:39], batch(0)[1]), "not a list of 40"),
    "a label of two bytes": (
        FIRST.replace(b"(K" + bytes([batch(0)[0][0]]), b"(M\x00\x01", 1),
        "numbers of a byte",
    ),
    "a label that is a truth": (
        FIRST.replace(b"(K" + bytes([batch(0)[0][0]]), b"(\x88", 1),
        "numbers of a byte",
    ),
    "fewer pixels than promised": (
        FIRST.replace(b"T" + (ROWS * 3072).to_bytes(4, "little"), b"U\x09", 1),
        "",
    ),
    "too many instructions": (b"]" * 200_002, "has more than 200,000 instructions"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_refused_and_never_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, why = HOSTILE[case]
    with pytest.raises(ValueError) as refusal:
        parse_batch(content, ROWS, 3072)
    assert why in str(refusal.value)
    assert len(str(refusal.value)) < 200
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "pwned").exists()


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(b"\x80\x02(]})KU\x01aebuRcq\x85\x87.t")).map(bytes)
)
def test_any_bytes_are_read_or_refused(content):
    try:
        parse(content)
    except ValueError:
        return


@given(st.integers(0, 1500), st.integers(1, 255))
def test_any_damage_to_the_head_of_a_batch_is_read_or_refused(place, change):
    content = bytearray(FIRST)
    content[place] ^= change
    try:
        planes, labels = parse_batch(bytes(content), ROWS, 3072)
    except ValueError:
        return
    assert planes.shape == (ROWS, 3072)
    assert labels.shape == (ROWS,)


def test_staged_as_parquet_it_is_the_published_one(published, batches, tmp_path):
    ((name, place),) = stage(str(tmp_path / "staged"), ["cifar10"], str(published))
    assert (name, place) == ("cifar10", str(tmp_path / "staged/cifar10"))
    assert obtain("cifar10", place) == batches
    own = open_examples("own", place)
    assert own.dataset.image_shape == (32, 32, 3)
    train = own.training()[0]
    assert np.array_equal(train.images, training_splits(batches, CATALOGUE["cifar10"])[0].images)
    # Another picture in the same form.
    rows = Split(train.images ^ 1, train.labels)
    write_dataset(LocalStorage(tmp_path / "other"), "cifar10", cifar.LABELS, rows, rows)
    with pytest.raises(InputError, match="it must be the published cifar10"):
        obtain("cifar10", str(tmp_path / "other"))


def test_all_sets_are_shown_and_the_large_one_only_fetched_by_name(lenet, tmp_path):
    done = lenet("data", "show", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == list(CATALOGUE)
    done = lenet("data", "verify", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert "not verified: mnist, fashion-mnist;" in done.stderr


@pytest.mark.parametrize(
    ("model", "parameters"), [("alexnet", 1_884_778), ("lenet5", 545_846), ("ffnn", 1_841_162)]
)
def test_a_run_on_colours_from_training_to_prediction(model, parameters, published, tmp_path):
    """The image's shape comes from the data set, for the engine, the figures and predictions."""
    settings = {"model": model, "dataset": "cifar10", "data": str(published), "batch_size": 20}
    learned = {} if model == "lenet5" else {"augment_shift": 2, "augment_flip": "horizontal"}
    result = train(tmp_path, "r", **settings, epochs=3, **learned, limit_train=None)
    assert result["parameters"] == parameters
    run = open_run("r", str(tmp_path))
    assert dataset_of(run) == CATALOGUE["cifar10"]
    for name in ("first_ten", "in_detail"):
        with Image.open(tmp_path / "r/figures" / f"{name}.png") as picture:
            assert picture.mode == "RGB"
    test = test_split(obtain("cifar10", str(published)), CATALOGUE["cifar10"])
    best = model_with(run, run.restore().best_weights, CATALOGUE["cifar10"])
    probabilities = predict(best, test.images)
    accuracy = (probabilities.argmax(axis=1) == test.labels).mean()
    assert accuracy == pytest.approx(result["test_accuracy"])
    # A picture of the same size is taken as it is, a larger one is made smaller.
    Image.fromarray(test.images[0]).save(tmp_path / "same.png")
    Image.fromarray(test.images[0]).resize((64, 64), Image.Resampling.NEAREST).save(
        tmp_path / "twice.png"
    )
    paths = [str(tmp_path / name) for name in ("same.png", "twice.png")]
    same, twice = read_examples(paths, (32, 32, 3), is_digit=False)
    assert np.array_equal(same, test.images[0])
    assert np.abs(twice.astype(int) - test.images[0]).mean() < 20


def test_a_sweeps_process_trains_it_to_the_same_bits(published, tmp_path):
    more = {"model": "ffnn", "dataset": "cifar10", "data": str(published), "limit_train": 100}
    more |= {"augment_shift": 1, "epochs": 2, "batch_size": 32, "storage": str(tmp_path)}
    expected = train(tmp_path, "alone", **more)
    run = prepare_run({**more, "name": "warm", "seed": expected["seed"]})
    warm = WarmProcess(len(os.sched_getaffinity(0)), 0.0, CATALOGUE["cifar10"])
    assert [epoch.is_last for epoch in warm.train(run)] == [False, True]
    assert warm.evaluate(run, "here")["weights_sha256"] == expected["weights_sha256"]
