"""Data sets as Parquet: the same examples, checked to the byte, from disk or object storage."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from job.data.catalogue import CATALOGUE, Dataset
from job.data.examples import Examples, open_examples
from job.data.files import Split
from job.data.readers.parquet import pixels_of, write_dataset
from job.data.sources import obtain
from job.errors import InputError, JobError
from job.runs.data import dataset_of, examples_of
from job.runs.run import prepare_run
from job.storage.disk import LocalStorage
from job.storage.open import open_storage
from job.storage.s3 import S3Storage
from job.train import training_session
from job.training.progress import Silent
from tests.kit.commands import environment, tree
from tests.test_config.test_bad_input import refused
from tests.test_runs.test_train import train

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
PARTS = ("train.parquet", "test.parquet")
NAMES = ("zero", "one", "two")


def split_of(rows: int, *, labels: int = 3) -> Split:
    random = np.random.default_rng(rows)
    images = random.integers(0, 256, (rows, 28, 28, 1), np.uint8)
    return Split(images, (np.arange(rows) % labels).astype(np.int32))


TRAIN, TEST = split_of(50), split_of(7)


@pytest.fixture(scope="session")
def staged_once(lenet, mnist, tmp_path_factory) -> Path:
    """A folder with MNIST in it; tests read it and change copies only."""
    folder = tmp_path_factory.mktemp("staged")
    done = lenet("data", "stage", "data", "mnist", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "mnist: data/mnist\n"), done.stderr
    return folder / "data" / "mnist"


@pytest.fixture
def staged(staged_once, tmp_path) -> Path:
    return Path(shutil.copytree(staged_once, tmp_path / "mnist"))


@pytest.fixture
def own(tmp_path) -> Path:
    """A small set of a user."""
    write_dataset(LocalStorage(tmp_path / "own"), "counts", NAMES, TRAIN, TEST)
    return tmp_path / "own"


@pytest.fixture
def node(tmp_path, monkeypatch) -> Path:
    """An empty cache; returns its folder of fetched files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lenet-on-ray" / "by-sha256"


def test_staged_mnist_is_the_published_one(staged_once, mnist):
    assert obtain("mnist", str(staged_once)) == mnist
    document = json.loads((staged_once / "dataset.json").read_text())
    assert document["format"] == 1
    assert document["name"] == "mnist"
    assert document["labels"] == list("0123456789")
    for part, rows, files in (
        ("train.parquet", 60_000, CATALOGUE["mnist"].files[:2]),
        ("test.parquet", 10_000, CATALOGUE["mnist"].files[2:]),
    ):
        content = (staged_once / part).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert document["files"][part] == {"size": len(content), "sha256": digest, "rows": rows}
        # What any reader of Parquet finds.
        table = pq.read_table(staged_once / part)
        assert table.schema.types == [pa.binary(784), pa.uint8()]
        pixels, labels = (mnist[file.name] for file in files)
        assert b"".join(table["image"].to_pylist()) == pixels[16:]
        assert bytes(table["label"].to_pylist()) == labels[8:]
        assert table.schema.metadata == {
            b"lenet.name": b"mnist",
            b"lenet.labels": json.dumps(list("0123456789")).encode(),
            b"lenet.image_sha256": hashlib.sha256(pixels[16:]).hexdigest().encode(),
            b"lenet.label_sha256": hashlib.sha256(labels[8:]).hexdigest().encode(),
        }


def test_staging_again_gives_equal_files(staged, staged_once, lenet, tmp_path):
    before = tree(staged_once)
    (staged / "test.parquet").write_bytes(b"damaged")
    # From Parquet to Parquet, over what is there.
    done = lenet("data", "stage", tmp_path, "mnist", "--data", staged_once, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(staged) == before


def test_the_document_is_written_last_and_taken_away_first(own, monkeypatch):
    """A process that dies between two files leaves no set, rather than half of one."""
    write = LocalStorage.write

    def dying(self, path, content):
        if path == "test.parquet":
            raise KeyboardInterrupt
        write(self, path, content)

    monkeypatch.setattr(LocalStorage, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(LocalStorage(own), "counts", NAMES, split_of(60), TEST)
    assert set(tree(own)) == set(PARTS)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dataset", ["mnist", "own"])
def test_a_flipped_bit_is_noticed(part, dataset, lenet, tmp_path, request):
    folder = request.getfixturevalue("own" if dataset == "own" else "staged")
    flip(folder / part)
    found = hashlib.sha256((folder / part).read_bytes()).hexdigest()
    wanted = json.loads((folder / "dataset.json").read_text())["files"][part]["sha256"]
    line = refused(lenet, tmp_path, "train", "--dataset", dataset, "--data", folder)
    assert f"{part}: SHA-256 is {found[:16]}…, dataset.json says {wanted[:16]}…" in line


def test_every_byte_of_the_document_counts(own):
    """The set reads as before, or not at all, whichever character is another one."""
    before = open_examples("own", str(own))
    document = (own / "dataset.json").read_bytes()
    for index in range(len(document)):
        changed = bytearray(document)
        changed[index] ^= 4
        (own / "dataset.json").write_bytes(changed)
        error = None
        try:
            assert open_examples("own", str(own)) == before
        except InputError as refused:
            error = refused
        # What is read is not in a name, a number or a hash.
        assert "dataset.json" in str(error) if error else chr(document[index]).isspace()


def test_other_pixels_under_the_name_of_mnist_are_refused(lenet, mnist, tmp_path, splits):
    """Every hash in the set is right; they are not the published ones."""
    train, validation, test = splits
    images = np.concatenate([train.images, validation.images])
    labels = np.concatenate([train.labels, validation.labels])
    images[12_345, 20, 20] ^= 1
    write_dataset(
        LocalStorage(tmp_path / "data"), "mnist", tuple("0123456789"), Split(images, labels), test
    )
    line = refused(lenet, tmp_path, "train", "--data", "data")
    assert "train-images-idx3-ubyte SHA-256 is" in line
    assert "must be the published mnist" in line
    line = refused(lenet, tmp_path, "train", "--data", "data", "--dataset", "fashion-mnist")
    assert "holds 'mnist'" in line


def rewrite(change: Callable[[pa.Table], pa.Table], part: str = "train.parquet"):
    """Changes a table and makes the document fit, as another writer of such sets could."""

    def damage(folder: Path) -> None:
        table = change(pq.read_table(folder / part))
        pq.write_table(table, folder / part)
        content = (folder / part).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entry = {"size": len(content), "sha256": digest, "rows": len(table)}
        document(lambda d: d["files"].update({part: entry}))(folder)

    return damage


def document(change: Callable[[dict], object]):
    def damage(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        change(content)
        (folder / "dataset.json").write_text(json.dumps(content))

    return damage


def column(name: str, values: Callable[[pa.Table], pa.Array]):
    return lambda t: t.set_column(t.schema.get_field_index(name), name, values(t))


def labels(*first: int | None):
    """Puts labels into the first rows."""
    return column(
        "label", lambda t: pa.array([*first, *t["label"].to_pylist()[len(first) :]], pa.uint8())
    )


def garbage(folder: Path) -> None:
    content = b"PAR1" + bytes(1000) + b"PAR1"
    (folder / "train.parquet").write_bytes(content)
    entry = {"size": 1008, "sha256": hashlib.sha256(content).hexdigest(), "rows": 50}
    document(lambda d: d["files"].update({"train.parquet": entry}))(folder)


BAD = {
    "label out of range": (
        rewrite(labels(0, 7)),
        "train.parquet: column label holds 7 in row 1 (from 0); there are 3 labels, 0 to 2",
    ),
    "label out of range in the test part": (
        rewrite(labels(3), "test.parquet"),
        "test.parquet: column label holds 3 in row 0",
    ),
    "no label": (rewrite(labels(None)), "train.parquet: column label has rows without a value"),
    "labels of another type": (
        rewrite(column("label", lambda t: t["label"].cast(pa.int64()))),
        "train.parquet: column label is int64, expected uint8",
    ),
    "images of another length": (
        rewrite(column("image", lambda t: pa.array([bytes(100)] * len(t), pa.binary(100)))),
        "train.parquet: column image is fixed_size_binary[100], expected fixed_size_binary[784]",
    ),
    "images of any length": (
        rewrite(column("image", lambda t: t["image"].cast(pa.binary()))),
        "train.parquet: column image is binary, expected fixed_size_binary[784]",
    ),
    "no column of images": (
        rewrite(lambda t: t.drop_columns("image"), "test.parquet"),
        "test.parquet: column image is missing",
    ),
    "no column of labels": (
        rewrite(lambda t: t.drop_columns("label")),
        "train.parquet: column label is missing",
    ),
    "no rows": (rewrite(lambda t: t[:0], "test.parquet"), "test.parquet has 0 rows"),
    "nothing to validate": (rewrite(lambda t: t[:1]), "train.parquet has 1 rows"),
    "other rows than promised": (
        document(lambda d: d["files"]["train.parquet"].update(rows=40)),
        "train.parquet has 50 rows, dataset.json says 40",
    ),
    "more rows than allowed": (
        document(lambda d: d["files"]["train.parquet"].update(rows=10**12)),
        "dataset.json: rows of train.parquet is 1000000000000",
    ),
    "a longer file than promised": (
        lambda folder: (folder / "test.parquet").open("ab").write(b"x"),
        "test.parquet is larger than",
    ),
    "a shorter file than promised": (
        lambda folder: (folder / "test.parquet").write_bytes(b"x"),
        "test.parquet has 1 bytes, dataset.json says",
    ),
    "a missing file": (
        lambda folder: (folder / "test.parquet").unlink(),
        "test.parquet is missing",
    ),
    "no Parquet": (garbage, "train.parquet is not a whole Parquet file"),
    "another format": (
        document(lambda d: d.update(format=3)),
        "dataset.json: format is 3; this version reads 1 and 2",
    ),
    "no format": (document(lambda d: d.pop("format")), "dataset.json: format is None"),
    "no name": (document(lambda d: d.update(name="../x")), "dataset.json: name is '../x'"),
    "one label": (document(lambda d: d.update(labels=["a"])), "dataset.json: labels has 1 names"),
    "257 labels": (
        document(lambda d: d.update(labels=[str(n) for n in range(257)])),
        "dataset.json: labels has 257 names; 2 to 256",
    ),
    "a label twice": (document(lambda d: d.update(labels=["a", "a", "b"])), "holds a name twice"),
    "labels that end a line": (
        document(lambda d: d.update(labels=["a\nb", "c", "d"])),
        "dataset.json: labels holds 'a\\nb', not 1 to 100 printable",
    ),
    "other labels than the files": (
        document(lambda d: d.update(labels=["a", "b", "c"])),
        "dataset.json: labels is not what train.parquet says",
    ),
    "no files": (document(lambda d: d.update(files=[])), "dataset.json: files is []"),
    "one file": (document(lambda d: d["files"].pop("test.parquet")), "files has no test.parquet"),
    "a hash that leads elsewhere": (
        document(lambda d: d["files"]["test.parquet"].update(sha256="../" * 30)),
        "dataset.json: sha256 of test.parquet is",
    ),
    "a size of an exabyte": (
        document(lambda d: d["files"]["test.parquet"].update(size=10**18)),
        "dataset.json: size of test.parquet is 1000000000000000000",
    ),
    "a shape of two": (
        document(lambda d: d.update(shape=[28, 28])),
        "dataset.json: shape is [28, 28]; give [height, width, channels] with 20 to 128",
    ),
    "a low image": (document(lambda d: d.update(shape=[19, 32, 1])), "shape is [19, 32, 1]"),
    "all rows validate": (
        document(lambda d: d.update(format=2, validation=d["files"]["train.parquet"]["rows"])),
        "dataset.json: validation is 50; give how many of 50 training rows validate",
    ),
    "a rule of the first format": (
        document(lambda d: d.update(validation=3)),
        "dataset.json: format is 1, validation is 3",
    ),
    "four channels": (document(lambda d: d.update(shape=[28, 28, 4])), "shape is [28, 28, 4]"),
    "large images": (document(lambda d: d.update(shape=[129, 129, 3])), "shape is [129, 129, 3]"),
    "a shape in words": (document(lambda d: d.update(shape="28 x 28")), "shape is '28 x 28'"),
    "another shape than the files": (
        document(lambda d: d.update(shape=[32, 32, 3])),
        "column image is fixed_size_binary[784], expected fixed_size_binary[3072]",
    ),
    "more pixels than allowed": (
        document(
            lambda d: d.update(shape=[32, 32, 3]) or d["files"]["train.parquet"].update(rows=10**6)
        ),
        "dataset.json: train.parquet has 1,000,000 rows of 3,072 values",
    ),
    "no JSON": (lambda folder: (folder / "dataset.json").write_text("{"), "is not JSON"),
    "no object": (lambda folder: (folder / "dataset.json").write_text("[]"), "not a JSON object"),
    "deep JSON": (lambda folder: (folder / "dataset.json").write_text("[" * 10**5), "is not JSON"),
    "a document of a megabyte": (
        lambda folder: (folder / "dataset.json").write_text(" " * (1 << 20) + "{}"),
        "dataset.json is larger than",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_set_is_refused(case, own):
    damage, why = BAD[case]
    damage(own)
    with pytest.raises(InputError) as refusal:
        open_examples("own", str(own))
    message = str(refusal.value)
    assert message.startswith(f"--data {str(own)!r}: ")
    assert why in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("case", ["label out of range in the test part", "another format"])
def test_train_refuses_a_bad_set_and_writes_nothing(case, own, lenet, tmp_path):
    damage, why = BAD[case]
    damage(own)
    assert why in refused(lenet, tmp_path, "train", "--dataset", "own", "--data", own)


def test_a_set_of_another_writer_is_read(own):
    """No metadata, more columns, several row groups, another compression."""
    before = open_examples("own", str(own))

    def change(table):
        extra = pa.array(range(len(table)))
        return table.replace_schema_metadata().add_column(0, "number", extra)

    rewrite(change)(own)
    table = pq.read_table(own / "test.parquet")
    pq.write_table(table, own / "test.parquet", row_group_size=2, compression="snappy")
    rewrite(lambda table: table, "test.parquet")(own)
    assert open_examples("own", str(own)) == before


UNUSABLE = {
    "a name with a slash": ({"name": "a/b"}, "name is 'a/b'"),
    "labels in one string": ({"labels": "abc"}, "labels is 'abc'"),
    "label below 0": (
        {"train": Split(TRAIN.images, TRAIN.labels - 1)},
        "train.parquet: column label holds -1 in row 0",
    ),
    "label above": (
        {"test": Split(TEST.images, TEST.labels + 1)},
        "test.parquet: column label holds 3 in row 2",
    ),
    "fractions": (
        {"train": Split(TRAIN.images / 255, TRAIN.labels)},
        "train.parquet: column image is made of float64",
    ),
    "another size": (
        {"test": Split(TEST.images[:, :14], TEST.labels)},
        "test.parquet: column image is made of uint8 (7, 14, 28, 1)",
    ),
    "small images": (
        {"train": Split(TRAIN.images[:, :14, :14], TRAIN.labels)},
        "shape is (14, 14, 1); give [height, width, channels]",
    ),
    "no images": ({"train": Split(TRAIN.labels, TRAIN.labels)}, "shape is (1,)"),
    "fewer images than labels": (
        {"test": Split(TEST.images[:5], TEST.labels)},
        "expected uint8 (7, 28, 28), as there are 7 labels",
    ),
    "labels as shares": (
        {"test": Split(TEST.images, np.eye(3)[TEST.labels])},
        "test.parquet: column label is made of float64 (7, 3)",
    ),
    "no rows": ({"test": Split(TEST.images[:0], TEST.labels[:0])}, "test.parquet has 0 rows"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_set_is_not_written(case, tmp_path):
    change, why = UNUSABLE[case]
    arguments = {"name": "x", "labels": NAMES, "train": TRAIN, "test": TEST, **change}
    with pytest.raises(InputError) as refusal:
        write_dataset(LocalStorage(tmp_path / "own"), **arguments)
    assert why in str(refusal.value)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 24, 1), (20, 40, 3)])
def test_images_of_other_shapes_come_back_as_they_were(shape, tmp_path):
    random = np.random.default_rng(1)
    train, test = (
        Split(random.integers(0, 256, (n, *shape), np.uint8), np.arange(n, dtype=np.int32) % 3)
        for n in (10, 4)
    )
    write_dataset(LocalStorage(tmp_path / "own"), "colours", NAMES, train, test)
    document = json.loads((tmp_path / "own" / "dataset.json").read_text())
    assert document["shape"] == list(shape)
    examples = open_examples("own", str(tmp_path / "own"))
    assert examples.dataset.image_shape == shape
    axes = 3 if shape[2] == 1 else 4
    assert [len(file.shape) for file in examples.dataset.files] == [axes, 1, axes, 1]
    assert np.array_equal(np.concatenate([s.images for s in examples.training()]), train.images)
    assert np.array_equal(examples.test().images, test.images)
    assert np.array_equal(examples.test().labels, test.labels)
    kept = json.loads(json.dumps(examples.dataset.to_dict()))
    assert Dataset.from_dict(kept) == examples.dataset


def test_as_many_rows_validate_as_were_written_so(tmp_path):
    write_dataset(LocalStorage(tmp_path / "own"), "strokes", NAMES, TRAIN, TEST, validation_rows=3)
    document = json.loads((tmp_path / "own" / "dataset.json").read_text())
    assert (document["format"], document["validation"]) == (2, 3)
    dataset, *_ = examples = open_examples("own", str(tmp_path / "own"))
    train, validation = examples.training()
    assert np.array_equal(validation.images, TRAIN.images[-3:])
    assert np.array_equal(train.labels, TRAIN.labels[:-3])
    kept = json.loads(json.dumps(dataset.to_dict()))
    assert Dataset.from_dict(kept) == dataset
    for spoilt in (0, len(TRAIN), "3", True):
        with pytest.raises(ValueError, match="validation is"):
            Dataset.from_dict({**kept, "validation_rows": spoilt})


def test_a_gray_set_of_28_pixels_is_written_as_before(own):
    assert "shape" not in json.loads((own / "dataset.json").read_text())


def test_pixels_of_parts_of_buffers():
    rows = pa.array([bytes([n]) * 784 for n in range(6)], pa.binary(784))
    pixels = pixels_of(pa.chunked_array([rows[4:6], rows[:0], rows[1:3]]), 784)
    assert pixels[::784].tolist() == [4, 5, 1, 2]
    assert len(pixels) == 4 * 784


def test_a_set_whose_rows_are_sorted_by_label_is_refused(tmp_path, lenet):
    """Its last fifth would be one class, which training never saw."""
    by_label = np.argsort(TRAIN.labels, kind="stable")
    rows = Split(TRAIN.images[by_label], TRAIN.labels[by_label])
    write_dataset(LocalStorage(tmp_path / "own"), "counts", NAMES, rows, TEST)
    for command in ("train", "sweep"):
        line = refused(lenet, tmp_path, command, "--dataset", "own", "--data", tmp_path / "own")
        assert f"label '{NAMES[0]}' has no row for validation" in line
        assert "write the rows in a random order" in line


def test_the_last_fifth_validates(own, node):
    examples = open_examples("own", str(own))
    assert not node.exists(), "a local folder needs no cache"
    train, validation = examples.training()
    assert np.array_equal(np.concatenate([train.images, validation.images]), TRAIN.images)
    assert (len(train), len(validation)) == (40, 10)
    assert np.array_equal(validation.labels, TRAIN.labels[40:])
    assert np.array_equal(examples.test().images, TEST.images)
    assert np.array_equal(examples.test().labels, TEST.labels)


def test_what_commands_refuse(lenet, tmp_path, s3, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("x")
    own = ("train", "--dataset", "own")
    assert "'own': needs --data" in refused(lenet, tmp_path, *own)
    assert "holds no dataset.json" in refused(lenet, tmp_path, *own, "--data", "empty")
    assert "holds no dataset.json" in refused(lenet, tmp_path, "train", "--data", s3)
    assert "--data 'ftp://x'" in refused(lenet, tmp_path, "train", "--data", "ftp://x")
    secret = refused(lenet, tmp_path, "train", "--data", "s3://key:secret@bucket/x")
    assert "--data" in secret
    assert "secret@" not in secret
    assert "DEST: say where to" in refused(lenet, tmp_path, "data", "stage")
    assert "DEST 'ftp://x'" in refused(lenet, tmp_path, "data", "stage", "ftp://x")
    assert "DEST 'a-file" in refused(lenet, tmp_path, "data", "stage", "a-file/x", "mnist")
    assert "did you mean 'mnist'" in refused(lenet, tmp_path, "data", "stage", "x", "minst")


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files that this process reads from object storage."""
    seen, read = [], S3Storage.read

    def counting(self, path, *, limit):
        seen.append(path)
        return read(self, path, limit=limit)

    monkeypatch.setattr(S3Storage, "read", counting)
    return seen


def test_object_storage_is_read_once_and_a_damaged_copy_again(s3, node, reads, caplog):
    write_dataset(open_storage(s3), "counts", NAMES, TRAIN, TEST)
    reads.clear()
    first = open_examples("own", s3)
    assert reads == ["dataset.json", *PARTS]
    reads.clear()
    assert open_examples("own", s3) == first
    assert reads == ["dataset.json"]
    kept = [path for path in node.iterdir() if path.suffix != ".lock"]
    for path in kept:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert len(kept) == 2
    for damage in (flip, lambda path: path.write_bytes(path.read_bytes() + b"x")):
        damage(kept[0])
        reads.clear()
        with caplog.at_level(logging.WARNING):
            assert open_examples("own", s3) == first
        assert len(reads) == 2
        assert f"{kept[0]} is damaged" in caplog.text
        assert hashlib.sha256(kept[0].read_bytes()).hexdigest() == kept[0].name


def test_a_cache_that_cannot_be_written_is_done_without(s3, node, caplog):
    write_dataset(open_storage(s3), "counts", NAMES, TRAIN, TEST)
    node.parent.mkdir(parents=True)
    node.write_text("in the way")
    examples = open_examples("own", s3)
    assert len(examples.test()) == 7
    assert "can't be used as a cache" in caplog.text


def _read_together(place: str, start, reads) -> None:
    read = S3Storage.read

    def counting(self, path, *, limit):
        reads.put(path)
        return read(self, path, limit=limit)

    S3Storage.read = counting
    start.wait()
    open_examples("own", place)


def test_workers_of_a_node_fetch_once(s3, node):
    write_dataset(open_storage(s3), "counts", NAMES, TRAIN, TEST)
    context = multiprocessing.get_context("fork")
    start, reads = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_read_together, args=(s3, start, reads)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seen = [reads.get(timeout=60) for _ in range(4 + 2)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert reads.empty()
    assert sorted(seen) == sorted(["dataset.json"] * 4 + list(PARTS))


def test_staged_in_object_storage_and_damaged_there(staged_once, s3, node, mnist, lenet, tmp_path):
    (empty := tmp_path / "empty").mkdir()
    done = lenet("data", "stage", s3, "mnist", "--data", staged_once, cwd=empty)
    assert (done.returncode, done.stdout) == (0, f"mnist: {s3}/mnist\n"), done.stderr
    assert obtain("mnist", f"{s3}/mnist") == mnist
    shutil.rmtree(node)
    there = open_storage(s3).at("mnist")
    content = bytearray(there.read("test.parquet", limit=1 << 30))
    content[5000] ^= 1
    there.write("test.parquet", bytes(content))
    line = refused(lenet, empty, "train", "--data", f"{s3}/mnist")
    digest = hashlib.sha256(content).hexdigest()
    assert f"'{s3}/mnist': test.parquet: SHA-256 is {digest[:16]}" in line


@pytest.fixture(scope="module")
def strokes(lenet, tmp_path_factory) -> Path:
    """The example of the documentation, with its own commands: a folder with a set and a run."""
    folder = tmp_path_factory.mktemp("strokes")
    page = DOCS.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (arguments,) = re.findall(r"\$ lenet (train --dataset own .*strokes.*)", page)
    done = lenet(*arguments.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_an_own_set_trains_and_is_told_apart(strokes, lenet):
    run = strokes / "runs" / "strokes"
    result = json.loads((run / "result.json").read_text())
    assert result["dataset"] == "strokes"
    assert result["test_accuracy"] > 0.9
    kept = json.loads((run / "data.json").read_text())
    assert kept["labels"] == ["horizontal", "vertical", "cross"]
    assert [file["shape"][0] for file in kept["files"]] == [1000, 1000, 200, 200]
    done = lenet("evaluate", "strokes", "--json", cwd=strokes)
    assert json.loads(done.stdout)["accuracy"] == result["test_accuracy"]
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"first_ten.png", "in_detail.png", "confusion.png"} <= figures


def test_predictions_bear_its_label_names(strokes, lenet, tmp_path):
    shutil.copytree(strokes / "runs", tmp_path / "runs")
    pixels = np.zeros((28, 28), np.uint8)
    pixels[12] = 255
    Image.fromarray(pixels).save(tmp_path / "horizontal.png")
    Image.fromarray(pixels.T).save(tmp_path / "vertical.png")
    # The set is not there any more.
    done = lenet("predict", "strokes", "horizontal.png", "vertical.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [document["prediction"] for document in found] == ["horizontal", "vertical"]
    assert list(found[0]["probabilities"]) == ["horizontal", "vertical", "cross"]


def test_a_run_goes_on_with_its_own_set_only(strokes, lenet, tmp_path):
    folder = Path(shutil.copytree(strokes, tmp_path / "copy"))
    run = folder / "runs" / "strokes"
    (run / "result.json").unlink()
    write_dataset(LocalStorage(folder / "other"), "strokes", ["a", "b", "c"], TRAIN, TEST)
    again = ("train", "--name", "strokes", "--dataset", "own")
    line = refused(lenet, folder, *again, "--data", "other")
    assert "is not the data set that run 'strokes' was started with (other: train-images" in line
    line = refused(lenet, folder, "evaluate", "strokes", "--data", "other")
    assert "is not the data set" in line
    # Elsewhere, but the same.
    (folder / "data" / "strokes").rename(folder / "moved")
    done = lenet(*again, "--data", "moved", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (run / "result.json").exists()


def test_a_run_that_starts_anew_takes_what_it_is_given(own, tmp_path, monkeypatch):
    """Also if it dies when its settings are written and its data are not noted yet."""
    write_dataset(LocalStorage(tmp_path / "other"), "others", ["a", "b", "c"], TRAIN, TRAIN)
    given = {"dataset": "own", "data": str(own), "storage": str(tmp_path / "runs"), "name": "x"}
    with training_session(prepare_run(given), Silent()):
        pass
    assert dataset_of(prepare_run(given)).name == "counts"
    given["data"] = str(tmp_path / "other")
    with pytest.raises(InputError, match="is not the data set"):
        examples_of(prepare_run(given))
    with monkeypatch.context() as patch:
        write = LocalStorage.write

        def dying(self, path, content):
            write(self, path, content)
            if path == "config.json":
                raise KeyboardInterrupt

        patch.setattr(LocalStorage, "write", dying)
        with (
            pytest.raises(KeyboardInterrupt),
            training_session(prepare_run(given, overwrite=True), Silent()),
        ):
            pass
    with training_session(prepare_run(given), Silent()):
        assert dataset_of(prepare_run(given)).name == "others"


def test_a_run_reads_its_data_once_and_a_driver_lets_them_go(own, tmp_path, monkeypatch):
    opened = []

    def counting(*arguments, **more):
        opened.append(arguments)
        return open_examples(*arguments, **more)

    monkeypatch.setattr("job.runs.data.open_examples", counting)
    given = {"dataset": "own", "data": str(own), "epochs": 1, "batch_size": 10}
    train(tmp_path, "x", **given, limit_train=None)
    assert len(opened) == 1

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, Examples) for one in gc.get_objects())

    before = held()
    with training_session(prepare_run({**given, "storage": str(tmp_path), "name": "y"}), Silent()):
        assert held() == before


def test_runs_of_earlier_versions_noted_no_data(tmp_path):
    storage = {"storage": str(tmp_path)}
    assert dataset_of(prepare_run({"dataset": "mnist", **storage})) == CATALOGUE["mnist"]
    with pytest.raises(JobError, match=r"data\.json is missing"):
        dataset_of(prepare_run({"dataset": "own", **storage}))


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", "[" * 10**5),
        '{"name": "x", "labels": ["a", 2], "is_digits": false, "files": []}',
        '{"name": "x", "labels": ["a", "b"], "is_digits": false, "files": []}',
        '{"name": "x", "labels": ["a", "b"], "is_digits": false, "files": [{"name": 1}]}',
        json.dumps(
            {
                **{"name": "x", "labels": ["a", "b"], "is_digits": False},
                "files": [{"name": "x", "sha256": "", "shape": [1, 10**9, 10**9, 3]}] * 4,
            }
        ),
    ],
)
def test_damaged_notes_of_a_run_are_not_trusted(content, tmp_path):
    run = prepare_run({"storage": str(tmp_path)})
    run.storage.write("data.json", content.encode())
    with pytest.raises(JobError, match=r"data\.json can't be trusted"):
        dataset_of(run)
