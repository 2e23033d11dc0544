"""What people have becomes a data set: the same examples come out, in an order that trains."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from job.data.convert import Conversion, convert, set_aside
from job.data.examples import dataset_at, open_examples, stage_own
from job.data.files import Split, idx_header
from job.errors import InputError
from tests.test_config.test_bad_input import refused

TRAIN_ROWS, TEST_ROWS = 300, 60


@pytest.fixture(scope="module")
def few(splits) -> tuple[Split, Split]:
    """Rows of MNIST: to train, to test."""
    train, _, test = splits
    return tuple(
        Split(split.images[:rows], split.labels[:rows].astype(np.int64))
        for split, rows in ((train, TRAIN_ROWS), (test, TEST_ROWS))
    )


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def parts_of(few: tuple[Split, Split]) -> dict[str, Split]:
    return dict(zip(("train", "test"), few, strict=True))


def as_folders(few: tuple[Split, Split], place: Path) -> Path:
    for part, rows in parts_of(few).items():
        for index, (image, label) in enumerate(zip(*rows, strict=True)):
            folder = place / part / f"digit {label}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:04}.png").write_bytes(png(image))
    return place


def as_npz(few: tuple[Split, Split], place: Path) -> Path:
    train, test = few
    np.savez(
        place / "mine.npz",
        x_train=train.images[..., 0],
        y_train=train.labels,
        x_test=test.images[..., 0],
        y_test=test.labels,
    )
    return place / "mine.npz"


def as_csv(few: tuple[Split, Split], place: Path) -> Path:
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    for part, rows in parts_of(few).items():
        table = np.concatenate([rows.labels[:, None], rows.images.reshape(-1, 784)], axis=1)
        np.savetxt(place / f"{part}.csv", table, "%d", ",", header=header, comments="")
    return place


def as_hugging_face(few: tuple[Split, Split], place: Path) -> Path:
    for part, rows in parts_of(few).items():
        halves = np.array_split(np.arange(len(rows)), 2)
        for shard, where in enumerate(halves):
            cells = [{"bytes": png(rows.images[i]), "path": None} for i in where]
            table = pa.table({"image": cells, "label": rows.labels[where]})
            pq.write_table(table, place / f"{part}-{shard:05}-of-00002.parquet")
    return place


def as_idx(few: tuple[Split, Split], place: Path) -> Path:
    """EMNIST's letters: their names, on their side, labels from 1."""
    for part, rows in parts_of(few).items():
        images = np.ascontiguousarray(rows.images[..., 0].swapaxes(1, 2))
        for kind, array in (("images-idx3", images), ("labels-idx1", rows.labels + 1)):
            content = idx_header(array.shape) + array.astype(np.uint8).tobytes()
            path = place / f"emnist-letters-{part}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(content, 1))
    return place


FORMATS: dict[str, tuple[Callable, str]] = {
    "folders": (as_folders, "folders of pictures"),
    "npz": (as_npz, "arrays in .npz"),
    "csv": (as_csv, "CSV of pixels"),
    "Hugging Face": (as_hugging_face, "Parquet of pictures"),
    "EMNIST": (as_idx, "labels 1…10 → 0…9"),
}


def in_order(rows: Split) -> list[bytes]:
    return sorted(bytes([label]) + image.tobytes() for image, label in zip(*rows, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_examples_come_out_and_the_last_fifth_holds_each_label(kind, few, tmp_path, lenet):
    make, said = FORMATS[kind]
    (tmp_path / "theirs").mkdir()
    place = make(few, tmp_path / "theirs")
    done = lenet("data", "stage", "ours", "--data", place, "--name", "digits", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert "300 training rows" in done.stdout
    examples = open_examples("own", str(tmp_path / "ours/digits"))
    train, validation = examples.training()
    assert sorted([*in_order(train), *in_order(validation)]) == in_order(few[0])
    assert in_order(examples.test()) == in_order(few[1])
    shares = np.bincount(validation.labels) / np.bincount(few[0].labels)
    assert np.abs(shares - 0.2).max() < 0.06
    # In no order that a class could be told by.
    assert len(set(train.labels[:80])) == 10


@pytest.mark.parametrize("kind", FORMATS)
def test_it_is_trained_on_without_staging_as_well(kind, few, tmp_path):
    """The same rows in the same order, so the same run."""
    make, _ = FORMATS[kind]
    (tmp_path / "theirs").mkdir()
    place = str(make(few, tmp_path / "theirs"))
    stage_own(str(tmp_path), place, "ours")
    staged, direct = (open_examples("own", at) for at in (str(tmp_path / "ours"), place))
    assert dict(direct.contents) == dict(staged.contents)
    assert direct.dataset.labels == staged.dataset.labels
    assert "300 training rows" in direct.description
    # Those that MNIST is published as as well are named, so that damaged files of its stay that.
    assert dataset_at(place) == (None if kind in ("npz", "EMNIST") else "own")


def test_a_folder_of_pictures_is_trained_on_resumed_and_not_exchanged(few, tmp_path, lenet):
    as_folders(few, tmp_path / "digits")
    words = ("train", "--data", "digits", "--model", "ffnn", "--epochs", 2, "--name", "r")
    done = lenet(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "folders of pictures: 300 training rows (digit 0 "
    assert said in done.stderr
    result = json.loads((tmp_path / "runs/r/result.json").read_text())
    assert result["dataset"] == "digits"
    assert result["data"].startswith(said)
    assert "300 training rows" in (tmp_path / "runs/r/README.md").read_text()
    evaluated = lenet("evaluate", "r", "--json", cwd=tmp_path)
    assert json.loads(evaluated.stdout)["accuracy"] == result["test_accuracy"]
    next((tmp_path / "digits/train").glob("*/*.png")).unlink()
    other = lenet("evaluate", "r", cwd=tmp_path)
    assert other.returncode == 2
    assert "is not the data set that run 'r' was started with" in other.stderr


def test_pictures_of_any_size_are_trained_on(tmp_path, lenet):
    chance = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(24):
            shape = (30 + index, 40, 3)
            image = Image.fromarray(chance.integers(0, 255, shape, dtype=np.uint8))
            image.save(tmp_path / "pets" / label / f"{index}.jpg")
    words = ("train", "--data", "pets", "--epochs", 1, "--batch-size", 8, "--name", "r")
    refused_ = lenet(*words, cwd=tmp_path)
    assert refused_.returncode == 2
    assert "--image-size" in refused_.stderr
    assert not (tmp_path / "runs").exists()
    done = lenet(*words, "--image-size", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 × 20 × 3; no test part: a sixth of each label is set aside for it" in done.stderr
    published = lenet("train", "--image-size", 20, "--epochs", 1, cwd=tmp_path)
    assert published.returncode == 2
    assert "is for pictures that are converted" in published.stderr


def test_qmnist_by_its_own_names(few, tmp_path):
    """Its labels are rows of eight numbers, of which the first is the label."""
    for part, rows in parts_of(few).items():
        images = rows.images[..., 0]
        labels = np.zeros((len(rows), 8), ">i4")
        labels[:, 0] = rows.labels
        for kind, content in (
            ("images-idx3-ubyte", idx_header(images.shape) + images.tobytes()),
            (
                "labels-idx2-int",
                bytes([0, 0, 12, 2]) + idx_header((len(rows), 8))[4:] + labels.tobytes(),
            ),
        ):
            (tmp_path / f"qmnist-{part}-{kind}").write_bytes(content)
    made = convert(str(tmp_path))
    assert in_order(made.train) == in_order(few[0])
    assert in_order(made.test) == in_order(few[1])


def test_a_picture_beside_tables_does_not_make_them_pictures(few, tmp_path):
    as_hugging_face(few, tmp_path)
    (tmp_path / "assets").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "assets/logo.png")
    assert convert(str(tmp_path)).description.startswith("Parquet of pictures")


def test_a_table_without_labels_is_left_out(few, tmp_path):
    """The test part of a competition, or notes about the pictures."""
    as_csv(few, tmp_path)
    (tmp_path / "notes.csv").write_text("writer,city\nAnna,Rome\n")
    assert in_order(convert(str(tmp_path)).train) == in_order(few[0])


def test_what_was_made_is_trained(few, tmp_path, lenet):
    as_npz(few, tmp_path)
    done = lenet("data", "stage", ".", "--data", "mine.npz", "--name", "d", cwd=tmp_path)
    *_, command = done.stdout.splitlines()
    words = command.split()[1:]
    done = lenet(*words, "--name", "r", "--epochs", 1, "--model", "ffnn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/r/result.json").read_text())["dataset"] == "d"


def test_colours_and_sizes(tmp_path):
    """JPEG of several sizes, one of them transparent, without parts: all become N × N."""
    chance = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(12):
            shape = (30 + index, 40, 3)
            image = Image.fromarray(chance.integers(0, 255, shape, dtype=np.uint8))
            image.save(tmp_path / "pets" / label / f"{index}.jpg")
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "pets/cat/ghost.png")
    made = convert(str(tmp_path / "pets"), Conversion((32, 32)))
    assert made.labels == ("cat", "dog")
    assert made.train.images.shape == (21, 32, 32, 3)
    assert made.test.images.shape == (4, 32, 32, 3)
    assert "a sixth of each label is set aside" in made.description
    both = np.concatenate([made.train.images, made.test.images])
    assert sum((image == 255).all() for image in both) == 1


def test_pictures_that_are_no_squares_are_trained_on(few, tmp_path, lenet):
    """From folders and, where the size is said, from CSV; the answer is the same for both."""
    low = tuple(Split(split.images[:, 4:24], split.labels) for split in few)
    as_folders(low, tmp_path / "low")
    words = ("train", "--epochs", 1, "--batch-size", 50, "--augment-shift", 1)
    done = lenet(*words, "--data", "low", "--name", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "20 × 28 × 1" in done.stderr
    picture = next((tmp_path / "low/test/digit 4").iterdir())
    asked = lenet("predict", "r", picture, "--json", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    (tmp_path / "csv").mkdir()
    table = np.concatenate([low[0].labels[:, None], low[0].images.reshape(-1, 560)], axis=1)
    header = ",".join(["label", *(f"pixel{i}" for i in range(560))])
    np.savetxt(tmp_path / "csv/train.csv", table, "%d", ",", header=header, comments="")
    square = lenet("data", "stage", "o", "--data", "csv", "--name", "d", cwd=tmp_path)
    assert "560 columns of pixels, which is no square; give --image-size HxW" in square.stderr
    made = convert(str(tmp_path / "csv"), Conversion((20, 28)))
    assert in_order(Split(*map(np.concatenate, zip(made.train, made.test, strict=True)))) == (
        in_order(low[0])
    )


def test_a_validation_part_is_kept(few, tmp_path):
    """To the picture, whatever its share; another rule is refused."""
    train, held = (Split(*(array[part] for array in few[0])) for part in np.s_[:240, 240:])
    place = as_folders((train, held), tmp_path / "digits")
    (place / "test").rename(place / "val")
    examples = open_examples("own", str(place))
    trained, validation = examples.training()
    assert in_order(validation) == in_order(held)
    rest = in_order(Split(*map(np.concatenate, zip(trained, examples.test(), strict=True))))
    assert rest == in_order(train)
    assert len(set(trained.labels[:80])) == 10, "in no order that a class could be told by"
    assert "its validation part of 60 rows is kept" in examples.description
    assert examples.dataset.validated == "the last 60 rows of the training files"
    with pytest.raises(InputError, match="which is kept; leave --validation out"):
        convert(str(place), Conversion(validation=0.1))


def test_a_share_of_each_label_validates(few, tmp_path, lenet):
    as_folders(few, tmp_path / "digits")
    words = ("--data", "digits", "--validation", 0.1)
    done = lenet("data", "stage", "ours", *words, "--name", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no validation part: 0.1 of each label is set aside for it" in done.stdout
    staged = open_examples("own", str(tmp_path / "ours/d"))
    _, validation = staged.training()
    assert len(validation) == 30
    assert np.bincount(validation.labels).min() >= 1
    few_steps = ("--model", "ffnn", "--epochs", 1, "--name", "r")
    done = lenet("train", *words, *few_steps, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "runs/r/data.json").read_text())
    assert kept["validation_rows"] == 30
    card = " ".join((tmp_path / "runs/r/README.md").read_text().split())
    assert "30 for validation (the last 30 rows of the training files)" in card
    assert "--validation 0.1" in card
    assert lenet("evaluate", "r", cwd=tmp_path).returncode == 0
    staged = ("--dataset", "own", "--data", "ours/d")
    again = lenet("train", *staged, "--validation", 0.2, cwd=tmp_path)
    assert again.returncode == 2
    assert "--validation '0.2': is for pictures that are converted" in again.stderr


def test_names_of_labels_in_parquet_of_hugging_face(few, tmp_path):
    """They are in the metadata, in an order of their own."""
    names = [f"digit {letter}" for letter in "zyxwvutsrq"]
    as_hugging_face(few, tmp_path)
    kept = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    for path in tmp_path.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(kept)}), path)
    made = convert(str(tmp_path))
    assert made.labels == tuple(names)
    assert in_order(made.train) == in_order(few[0])
    kept["info"]["features"]["label"]["names"] = names[:9]
    table = table.replace_schema_metadata({"huggingface": json.dumps(kept)})
    pq.write_table(table, path)
    with pytest.raises(InputError, match="beyond the 9 that its metadata name"):
        convert(str(tmp_path))


def test_sixteen_bits_become_eight(few, tmp_path):
    """The upper ones, of all pictures alike: a dark one stays dark."""
    for label in ("dark", "light"):
        (tmp_path / "deep" / label).mkdir(parents=True)
        for index, image in enumerate(few[0].images[:9, ..., 0]):
            values = image.astype(np.uint16) * (257 if label == "light" else 30)
            Image.fromarray(values).save(tmp_path / "deep" / label / f"{index}.png")
    made = convert(str(tmp_path / "deep"))
    images = np.concatenate([made.train.images, made.test.images])
    labels = np.concatenate([made.train.labels, made.test.labels])
    assert images.shape == (18, 28, 28, 1)
    assert images[labels == 0].max() == 255 * 30 >> 8
    assert in_order(Split(images[labels == 1], labels[labels == 1])) == sorted(
        bytes([1]) + image.tobytes() for image in few[0].images[:9]
    )


def test_rows_are_divided_by_label_to_the_row():
    labels = np.repeat([0, 1, 2], [100, 7, 2])
    kept, aside = set_aside(labels, "abc", 22, 1)
    assert sorted([*kept, *aside]) == list(range(109))
    assert len(aside) == 22
    assert np.bincount(labels[aside]).tolist() == [20, 1, 1]
    again = set_aside(labels, "abc", 22, 1)
    assert np.array_equal(aside, again[1])


def damaged_picture(place: Path) -> None:
    file = next(place.glob("train/digit 3/*.png"))
    file.write_bytes(file.read_bytes()[:60])


def colour_among_grey(place: Path) -> None:
    Image.new("RGB", (28, 28)).save(place / "train/digit 9/zz.png")


def larger_picture(place: Path) -> None:
    Image.new("L", (30, 28)).save(place / "train/digit 9/zz.png")


def empty_class(place: Path) -> None:
    (place / "train/digit 77").mkdir()


def lonely_class(place: Path) -> None:
    (place / "train/extra").mkdir()
    Image.new("L", (28, 28)).save(place / "train/extra/a.png")


def many_classes(place: Path) -> None:
    for index in range(300):
        (place / f"train/c{index}").mkdir()
        Image.new("L", (28, 28)).save(place / f"train/c{index}/a.png")


def rectangles(place: Path) -> None:
    for path in place.rglob("*.png"):
        Image.new("L", (30, 19)).save(path)


def validated_in_part(place: Path) -> None:
    shutil.copytree(place / "test", place / "val", ignore=lambda *_: ["digit 9"])


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a broken picture": (damaged_picture, "is not a whole PNG or JPEG image"),
    "grey and colour": (
        colour_among_grey,
        "digit 9/zz.png is 28 × 28 × 3 (height, width, channels)",
    ),
    "two sizes": (larger_picture, "--image-size N makes them equal"),
    "an empty class folder": (empty_class, "train/digit 77 holds no picture"),
    "a class of one": (lonely_class, "label 'extra' has 1 training row(s); it needs two"),
    "300 classes": (many_classes, "has 310 labels; give 2 to 256"),
    "too low": (rectangles, "give [height, width, channels] with 20 to 128 pixels a side"),
    "no picture of a label validates": (validated_in_part, "has no row in the val part"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_bad_folders_are_refused_in_one_line(case, few, tmp_path, lenet):
    damage, why = FOLDERS[case]
    damage(as_folders(few, tmp_path / "theirs"))
    line = refused(lenet, tmp_path, "data", "stage", "o", "--data", "theirs", "--name", "d")
    assert "--data 'theirs'" in line
    assert why in line


def csv_with(place: Path, row: int, text: str) -> None:
    file = place / "train.csv"
    lines = file.read_text().splitlines()
    lines[row] = text
    file.write_text("\n".join(lines))


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "NaN in CSV": (
        "csv",
        lambda p: csv_with(p, 7, ",".join(["3", "NaN", *["0"] * 783])),
        "train.csv: row 7 has nan for pixel0; a pixel is a whole number from 0 to 255",
    ),
    "a pixel of 300": (
        "csv",
        lambda p: csv_with(p, 2, ",".join(["3", "300", *["0"] * 783])),
        "row 2 has 300 for pixel0",
    ),
    "a pixel of 12.7": (
        "csv",
        lambda p: csv_with(p, 2, ",".join(["3", "12.7", *["0"] * 783])),
        "row 2 has 12.7 for pixel0",
    ),
    "a word for a pixel": (
        "csv",
        lambda p: csv_with(p, 4, ",".join(["3", "dark", *["0"] * 783])),
        "row 4 has dark for pixel0",
    ),
    "two sets of EMNIST": (
        "EMNIST",
        lambda p: [
            path.with_name(path.name.replace("letters", "digits")).write_bytes(path.read_bytes())
            for path in p.iterdir()
        ],
        "is not the only file with images of the test part",
    ),
    "a row that is too short": ("csv", lambda p: csv_with(p, 3, "1,2,3"), "is no table"),
    "columns that make no square": (
        "csv",
        lambda p: (p / "train.csv").write_text("label,a,b\n1,2,3\n"),
        "2 columns of pixels, which is no square",
    ),
    "no .npz": ("npz", lambda p: p.write_bytes(b"nothing"), "is no .npz of plain arrays"),
    "pickles in .npz": (
        "npz",
        lambda p: np.savez(p, x_train=np.array([{}], object), y_train=np.zeros(1, int)),
        "is no .npz of plain arrays",
    ),
    "floats": (
        "npz",
        lambda p: np.savez(p, x_train=np.zeros((9, 28, 28)), y_train=np.zeros(9, int)),
        "float64 (9, 28, 28); give uint8",
    ),
    "fewer labels than images": (
        "npz",
        lambda p: np.savez(p, x_train=np.zeros((9, 28, 28), "u1"), y_train=np.zeros(8, int)),
        "give one whole number or name for each of 9 images",
    ),
    "Parquet without pictures": (
        "Hugging Face",
        lambda p: pq.write_table(pa.table({"text": ["a"]}), p / "train-00000-of-00002.parquet"),
        "has columns text; image and label are needed",
    ),
    "a cell that is no picture": (
        "Hugging Face",
        lambda p: pq.write_table(
            pa.table({"image": [b"x"], "label": [1]}), p / "train-00000-of-00002.parquet"
        ),
        "row 1 is not a whole PNG or JPEG image",
    ),
    "IDX that is cut off": (
        "EMNIST",
        lambda p: next(p.glob("*train-images*")).write_bytes(idx_header((300, 28, 28)) + b"x"),
        "has 1 bytes for an array of shape (300, 28, 28)",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files_are_refused_in_one_line(case, few, tmp_path, lenet):
    kind, damage, why = FILES[case]
    place = tmp_path / "theirs"
    place.mkdir()
    found = FORMATS[kind][0](few, place)
    damage(found)
    name = found.relative_to(tmp_path)
    assert why in refused(lenet, tmp_path, "data", "stage", "o", "--data", name, "--name", "d")


def test_who_takes_them_for_a_published_set_is_told(few, tmp_path, lenet):
    (tmp_path / "theirs").mkdir()
    as_hugging_face(few, tmp_path / "theirs")
    line = refused(lenet, tmp_path, "train", "--dataset", "mnist", "--data", "theirs")
    assert "it holds Parquet of pictures, which --dataset own takes" in line


def test_nothing_known_and_bad_options(tmp_path, lenet):
    (tmp_path / "empty").mkdir()
    stage = ("data", "stage", "o")
    assert "nothing that can be read" in refused(
        lenet, tmp_path, *stage, "--data", "empty", "--name", "d"
    )
    assert "needs --data" in refused(lenet, tmp_path, *stage, "--name", "d")
    given = (*stage, "--data", "empty", "--name")
    assert "--name 'a/b'" in refused(lenet, tmp_path, *given, "a/b")
    assert "--image-size '7'" in refused(lenet, tmp_path, *given, "d", "--image-size", "7")
    with pytest.raises(InputError, match="nowhere"):
        convert(str(tmp_path / "nowhere"))
