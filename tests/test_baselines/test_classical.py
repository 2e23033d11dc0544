"""Features, neighbours and machines, on real digits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from job.baselines.features import CELLS, DIRECTIONS, KINDS, features_of, slant
from job.baselines.learners import SEARCH_ROWS, Neighbours, Preparation, search_rows
from job.baselines.methods import METHODS
from job.baselines.training import train_and_test
from job.data.catalogue import CATALOGUE
from job.data.examples import Examples
from job.errors import InputError


@pytest.fixture(scope="module")
def digits(splits):
    return splits[0].images[:2000]


def as_images(features: np.ndarray) -> np.ndarray:
    return features.reshape(-1, 28, 28)


def test_pixels_are_the_image(digits):
    assert np.array_equal(features_of("pixels", digits) * 255, digits.reshape(-1, 784))


def test_deskewed_digits_stand_upright_in_the_middle(digits):
    before, _ = slant(as_images(features_of("pixels", digits)))
    after, center = slant(as_images(features_of("deskewed", digits)))
    assert np.abs(before).mean() > 0.2
    assert np.abs(after).mean() < 0.02
    assert np.abs(center - 13.5).max() < 0.5
    ink = features_of("pixels", digits).sum(axis=1)
    assert features_of("deskewed", digits).sum(axis=1) == pytest.approx(ink, rel=0.1)


def test_a_sheared_stroke_becomes_straight():
    stroke = np.zeros((1, 28, 28, 1), np.uint8)
    for row in range(4, 24):
        stroke[0, row, 20 - row // 2, 0] = 255
    columns = as_images(features_of("deskewed", stroke))[0].sum(axis=0)
    assert columns[13:15].sum() > 0.9 * columns.sum()


def test_edges_have_their_directions():
    """Both sides of an upright bar, from dark to light and back; of a lying bar likewise."""
    bars = np.zeros((2, 28, 28, 1), np.uint8)
    bars[0, 6:22, 12:16] = bars[1, 12:16, 6:22] = 255
    found = features_of("gradients", bars).reshape(2, DIRECTIONS, CELLS * CELLS)
    assert np.linalg.norm(found.reshape(2, -1), axis=1) == pytest.approx([1, 1])
    upright, lying = (found**2).sum(axis=2)
    assert upright[[0, 4]].sum() > 0.7
    assert upright[0] == pytest.approx(upright[4], rel=1e-3)
    assert lying == pytest.approx(np.roll(upright, 2), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_of_one_image_alone(kind, digits):
    """However many come together; and an empty one, or one of three colours, is none the worse."""
    together = features_of(kind, digits)
    assert together.dtype == np.float32
    assert features_of(kind, digits[5:6]) == pytest.approx(together[5:6], abs=1e-6)
    empty = features_of(kind, np.zeros((1, 28, 28, 1), np.uint8))
    assert (empty == 0).all()
    assert np.isfinite(features_of(kind, np.repeat(digits[:2], 3, axis=3))).all()


def test_neighbours_vote_as_in_scikit_learn(splits):
    train = splits[0]
    _, rows = Preparation.fit("pixels", 30, train.images[:1500])
    rows, asked = rows[:1000], rows[1000:]
    labels, answers = train.labels[:1000], train.labels[1000:1500]
    candidates = METHODS["knn-pixels"].candidates
    for settings, accuracy in Neighbours().search(candidates, rows, labels, asked, answers):
        theirs = KNeighborsClassifier(
            settings["neighbours"], weights=settings["weights"], algorithm="brute"
        ).fit(rows, labels)
        ours = Neighbours().fit(settings, rows, labels)(asked)
        assert np.array_equal(ours, theirs.predict(asked)), settings
        assert accuracy == (ours == answers).mean()


def test_preparation_learns_from_training_rows_alone(digits):
    prepare, rows = Preparation.fit("pixels", 20, digits[:500])
    assert rows.shape == (500, 20)
    assert (rows**2).sum(axis=1).mean() == pytest.approx(1)
    assert prepare(digits[:500]) == pytest.approx(rows, abs=1e-4)
    assert (prepare(digits[500:]) ** 2).sum(axis=1).mean() != pytest.approx(1, abs=1e-3)


def test_rows_to_search_on_have_every_label():
    labels = np.array([0] * 30_000 + [1] * 30_000 + [2])
    chosen = search_rows(labels)
    assert len(chosen) == len(set(chosen)) == SEARCH_ROWS
    assert set(labels[chosen]) == {0, 1, 2}
    assert abs((labels[chosen] == 1).mean() - 0.5) < 0.02
    assert np.array_equal(chosen, search_rows(labels))
    assert sorted(search_rows(np.array([1, 0, 1]))) == [0, 1, 2]


@dataclasses.dataclass
class Watched:
    """Examples that remember what was asked of them."""

    examples: Examples
    asked: list[str] = dataclasses.field(default_factory=list)

    @property
    def dataset(self):
        return self.examples.dataset

    def training(self, limit_train):
        self.asked.append("training")
        return self.examples.training(limit_train)

    def test(self):
        self.asked.append("test")
        return self.examples.test()


# With 800 rows.
REACHED = {"knn-gradients": 0.95, "svm-poly9": 0.92}


@pytest.mark.parametrize("name", REACHED)
def test_validation_decides_and_the_test_set_is_read_once(name, mnist):
    watched = Watched(Examples(CATALOGUE["mnist"], mnist))
    result, predictions = train_and_test((watched, 800), name)
    assert watched.asked == ["training", "test"]
    assert predictions.accuracy == result["test_accuracy"] > REACHED[name]
    assert np.array_equal(predictions.labels, watched.test().labels)
    best = max(result["candidates"], key=lambda tried: tried["val_accuracy"])
    assert best == {**result["settings"], "val_accuracy": result["val_accuracy"]}
    assert result["train_rows"] == 800
    assert result["versions"].keys() >= {"scikit-learn", "scipy", "python"}
    assert all(result[f"{part}_seconds"] > 0 for part in ("train", "search", "test"))


def test_one_label_can_not_be_told_from_others(mnist):
    with pytest.raises(InputError, match=r"--limit-train '1': these rows all have one label"):
        train_and_test((Examples(CATALOGUE["mnist"], mnist), 1), "knn-pixels")
