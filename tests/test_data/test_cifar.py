"""CIFAR-10 in both of its published versions, and what else could be in their place."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import re
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from job.data import sources as download
from job.data.cache import cache_folder
from job.data.catalogue import CATALOGUE
from job.data.examples import open_examples, stage
from job.data.files import Split, check_file
from job.data.readers import cifar
from job.data.readers.parquet import write_dataset
from job.data.sources import cached, obtain
from job.data.splits import test_split, training_splits
from job.engine.scoring import predict
from job.errors import InputError, JobError
from job.results.evaluate import model_with
from job.results.predict import Form, read_examples
from job.runs.data import dataset_of
from job.runs.run import open_run, prepare_run
from job.storage.disk import LocalStorage
from tests.kit import cifar_files
from tests.kit.cifar_files import batch, packed, python2_batch
from tests.test_runs.test_train import train
from tuning.trials.warm import WarmProcess

PUBLISHED = CATALOGUE["cifar10"]


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
    ["cifar-10-batches-bin", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"],
)
def test_either_version_is_the_same(place, published, batches):
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
    assert "put cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the" in str(failure.value)
    # What Keras 3.15 leaves: the archive, under another name, and what it holds.
    place = tmp_path / "home/.keras/datasets"
    shutil.copytree(
        published / "cifar-10-batches-py", place / "cifar-10-batches-py-target/cifar-10-batches-py"
    )
    with pytest.raises(JobError, match="has pickles"):
        obtain("cifar10")
    shutil.copy(published / "cifar-10-python.tar.gz", place / "cifar-10-batches-py-target_archive")
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
        thread = threading.Thread(target=server.serve_forever, daemon=True)
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
        with pytest.raises(JobError, match=r"python\.tar\.gz: data_batch_1\.bin SHA-256 is"):
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
    "pickles": (
        lambda folder: (folder / PY).parent,
        "has pickles (data_batch_1), which are read from cifar-10-binary.tar.gz or "
        "cifar-10-python.tar.gz only; name that archive or its folder",
    ),
    "a missing batch": (
        lambda folder: (folder / BIN).unlink() or (folder / BIN).parent,
        "has no data_batch_2.bin",
    ),
    "nothing": (lambda folder: folder.parent, "has no data_batch_1.bin (also tried cifar-10-ba"),
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


class Boom:
    def __reduce__(self):
        return (os.mkdir, ("pwned",))


@pytest.mark.parametrize("fault", ["none", "call", "bit"])
def test_a_pickle_is_loaded_only_from_the_published_archive(
    fault, published, batches, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = published / "cifar-10-batches-py"
    if fault == "call":
        (folder / "data_batch_3").write_bytes(pickle.dumps(Boom()))
    content = packed(folder)
    if fault == "bit":
        content = content[:-1] + bytes([content[-1] ^ 1])
    else:
        # Should the pin be that of a hostile archive, it still calls nothing.
        pin = cifar.Archive(len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(cifar.ARCHIVES, "cifar-10-python.tar.gz", pin)
    (published / "cifar-10-python.tar.gz").write_bytes(content)
    place = str(published / "cifar-10-python.tar.gz")
    if fault == "none":
        assert obtain("cifar10", place) == batches
        return
    why = {"call": "names posix.mkdir, which no batch has", "bit": "SHA-256 is"}[fault]
    with pytest.raises(InputError, match=why):
        obtain("cifar10", place)
    assert not (tmp_path / "pwned").exists()


def test_the_pickles_made_here_are_pickles():
    """The oracle: Python's own unpickler reads them."""
    with warnings.catch_warnings():
        # NumPy 2 has moved the module that the files of 2009 name.
        warnings.simplefilter("ignore")
        theirs = pickle.loads(python2_batch(*batch(0)), encoding="bytes")
    labels, planes = batch(0)
    assert np.array_equal(theirs[b"data"], planes)
    assert theirs[b"labels"] == labels.tolist()


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
    same, twice = read_examples(paths, Form((32, 32, 3), is_digit=False)).images
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
