"""Augmentation: a pure function of seed, epoch and index; of training images only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.engine.runtime import start_tensorflow
from tests.kit.commands import result_of
from tests.test_runs.test_train import stop_after, train

start_tensorflow()

import tensorflow as tf  # noqa: E402

from job.config import config  # noqa: E402
from job.config.resolve import resolve  # noqa: E402
from job.data.catalogue import CATALOGUE  # noqa: E402
from job.data.files import Split  # noqa: E402
from job.engine import augment, engine  # noqa: E402
from job.engine.augment import Augmentation, augmented, draws  # noqa: E402
from job.engine.device_split import DeviceSplit  # noqa: E402
from job.engine.engine import Engine  # noqa: E402
from job.engine.randomness import AUGMENTATION, batches, example_order, philox, worker_slice  # noqa: E402
from job.errors import InputError, StopRequestedError  # noqa: E402
from tuning.sweep import prepare_sweep  # noqa: E402

BOTH = {"augment_shift": 2, "augment_flip": "horizontal", "dataset": "fashion-mnist"}
# The settings of all kinds at once, and what they are to the function.
ALL = {**BOTH, "augment_rotate": 12, "augment_scale": 0.1, "augment_elastic": 1.0}
EVERYTHING = Augmentation(shift=2, flip=True, rotate=12, scale=0.1, elastic=1.0)
# Digits are not mirrored.
DIGITS = {"dataset": "mnist", "augment_flip": "none"}
COUNT = 50


def drawn(seed: int, epoch: int, count: int = COUNT) -> np.ndarray:
    """With what warps images, in which the other numbers are the same."""
    place = (tf.constant(seed, tf.int64), tf.constant(epoch, tf.int64), count)
    found = draws(*place, warps=True).numpy()
    assert np.array_equal(draws(*place).numpy(), found[:, :4])
    return found


def images_of(count: int, shape: tuple[int, ...] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_each_image_is_moved_and_mirrored_as_drawn(shape, flip, shift):
    """The oracle pads, crops and mirrors one image after the other."""
    images, numbers = images_of(COUNT, shape), drawn(1, 0)
    found = augmented(
        tf.constant(images), tf.constant(numbers), Augmentation(shift=shift, flip=flip)
    ).numpy()
    assert found.dtype == np.uint8
    height, width, _ = shape
    for image, result, (down, right, mirror) in zip(images, found, numbers[:, :3], strict=True):
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        top, left = (int(number * (2 * shift + 1)) for number in (down, right))
        cut = padded[top : top + height, left : left + width]
        assert np.array_equal(result, cut[:, ::-1] if flip and mirror >= 0.5 else cut)


def test_every_distance_comes_and_half_are_mirrored():
    image = np.zeros((20_000, 9, 9, 1), np.uint8)
    image[:, 4, 4] = 255
    numbers = drawn(3, 7, len(image))
    _, rows, columns, _ = np.nonzero(
        augmented(image, numbers, Augmentation(shift=2, flip=False)).numpy()
    )
    counts = np.histogram2d(rows, columns, bins=(range(2, 8), range(2, 8)))[0]
    # 800 each: five standard deviations are 139.
    assert counts.shape == (5, 5)
    assert np.abs(counts - 800).max() < 139
    image[:, 4, 0] = 9
    mirrored = augmented(image, numbers, Augmentation(shift=0, flip=True)).numpy()[:, 4, 0, 0] == 0
    # Five standard deviations are 0.018.
    assert mirrored.mean() == pytest.approx(0.5, abs=0.018)


def warped(image: np.ndarray, numbers: np.ndarray, how: Augmentation) -> np.ndarray:
    """The oracle: pixel by pixel, in float64, with a field that is summed knot by knot."""
    height, width, _ = image.shape
    angle, tall, wide, _ = 2 * numbers[4:8] - 1
    turn, size = np.radians(how.rotate) * angle, (1 + how.scale * tall, 1 + how.scale * wide)
    pulls = (2 * numbers[8:] - 1).reshape(2, 6, 6)
    knots = np.linspace(0, 1, 6)

    def nearness(place: int, side: int) -> np.ndarray:
        return np.exp(-0.5 * (7 * (place / (side - 1) - knots)) ** 2)

    result = np.zeros(image.shape)
    for row, column in np.ndindex(height, width):
        y, x = row - (height - 1) / 2, column - (width - 1) / 2
        weights = np.outer(nearness(row, height), nearness(column, width))
        field = how.elastic * np.sqrt(3) * (pulls * weights).sum((1, 2)) / np.linalg.norm(weights)
        y, x = (
            (np.cos(turn) * y - np.sin(turn) * x) / size[0] + (height - 1) / 2 + field[0],
            (np.sin(turn) * y + np.cos(turn) * x) / size[1] + (width - 1) / 2 + field[1],
        )
        for i, j in np.ndindex(2, 2):
            near = int(np.floor(y)) + i, int(np.floor(x)) + j
            if 0 <= near[0] < height and 0 <= near[1] < width:
                share = (1 - abs(y - near[0])) * (1 - abs(x - near[1]))
                result[row, column] += share * image[near]
    return result


@pytest.mark.parametrize("shape", [(28, 28, 1), (12, 17, 3)])
@pytest.mark.parametrize(
    "how",
    [
        Augmentation(rotate=180),
        Augmentation(scale=0.5),
        Augmentation(elastic=8),
        Augmentation(rotate=15, scale=0.2, elastic=1.5),
    ],
)
def test_each_image_is_warped_as_drawn(shape, how):
    images, numbers = images_of(3, shape) / np.float32(255), drawn(4, 1, 3)
    found = augmented(tf.constant(images), tf.constant(numbers), how).numpy()
    assert found.dtype == np.float32
    for image, result, row in zip(images, found, numbers, strict=True):
        np.testing.assert_allclose(result, warped(image, row, how), atol=2e-4)


def test_images_are_moved_and_mirrored_before_they_are_warped():
    images, numbers = images_of(COUNT) / np.float32(255), drawn(4, 1)
    moved = augmented(images, numbers, EVERYTHING._replace(rotate=0, scale=0, elastic=0))
    found = augmented(moved, numbers, EVERYTHING._replace(shift=0, flip=False))
    assert np.array_equal(found, augmented(images, numbers, EVERYTHING))


def test_an_elastic_field_is_as_strong_as_said_everywhere_and_smooth():
    """Its standard deviation at each pixel, and what neighbours have in common."""
    rows, columns = augment._places(drawn(9, 0, 4_000)[:, 4:], 28, 28, Augmentation(elastic=2.0))
    pulls = np.stack([rows, columns]).reshape(2, -1, 28, 28) - np.indices((28, 28))[:, None]
    # Of 4,000 numbers: five standard errors are 0.11.
    assert np.abs(pulls.std(axis=1) - 2).max() < 0.11
    assert np.abs(pulls.mean(axis=1)).max() < 5 * 2 / np.sqrt(4_000)
    assert np.diff(pulls, axis=2).std() < 0.2 * 2
    assert np.diff(pulls, axis=3).std() < 0.2 * 2


def test_draws_are_pinned():
    """They are part of what a checkpoint means."""
    assert drawn(1, 0)[2, :6].tolist() == pytest.approx(PINNED, abs=1e-6)


PINNED = [
    *(0.5761624574661255, 0.7474440336227417, 0.4759221076965332, 0.17261981964111328),
    *(0.6939122676849365, 0.630699634552002),
]


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
def test_what_is_drawn_for_an_example_does_not_depend_on_how_many_there_are(seed, epoch, few, more):
    assert np.array_equal(drawn(seed, epoch, few), drawn(seed, epoch, few + more)[:few])


def test_draws_differ_by_seed_epoch_and_index_and_are_not_those_of_dropout():
    numbers = np.concatenate([drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)])
    # 800 numbers of 23 bits: two are alike once in 26 tries, four in a row never.
    assert len({row[:4].tobytes() for row in numbers}) == 4 * COUNT
    assert len({row[4:].tobytes() for row in numbers}) == 4 * COUNT
    assert not (numbers[:, :4, None] == numbers[:, None, 4:8]).any()
    assert AUGMENTATION == 2**16 - 1
    zero, ours = tf.zeros([2], tf.int64), drawn(1, 0)
    layers = [philox(tf.constant(1), layer, zero, COUNT, 4).numpy() for layer in (0, 2**16 - 2)]
    assert not any(
        (layer == part).any() for layer in layers for part in (ours[:, :4], ours[:, 4:8])
    )


@given(st.integers(1, COUNT), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=20)
def test_batch_size_position_and_workers_change_no_image(count, batch, world, epoch):
    """What each worker makes of its part is what one worker makes of an image."""
    images = images_of(COUNT) / np.float32(255)
    numbers = drawn(5, epoch)
    whole = augmented(images, numbers, EVERYTHING).numpy()
    rows = batches(example_order(5, epoch, count), batch)
    seen = set()
    for rank in range(world):
        for row in worker_slice(rows, rank, world):
            chosen = row[row >= 0]
            part = augmented(images[chosen], numbers[chosen], EVERYTHING).numpy()
            # The ends of arrays are computed by other instructions.
            np.testing.assert_allclose(part, whole[chosen], atol=1e-5)
            seen.update(chosen.tolist())
    assert seen == set(range(count))


@pytest.fixture(scope="module")
def rows(splits) -> Split:
    return Split(splits[0].images[:COUNT], splits[0].labels[:COUNT])


@pytest.fixture(scope="module")
def small(rows) -> DeviceSplit:
    return DeviceSplit.load(rows)


def test_two_workers_add_up_to_the_gradients_of_one(small):
    """Each computes its part with its own copy of what was drawn; their sum is what is applied."""
    settings = resolve({"model": "lenet5", "recipe": "notebook", "seed": 3, **ALL})
    numbers, rows = tf.constant(drawn(3, 4)), batches(example_order(3, 4, COUNT), COUNT)
    sums = []
    for world in (1, 2):
        engines = [Engine(settings, total_steps=9, rank=rank, world=world) for rank in range(world)]
        parts = [
            worker._loss_and_gradients(
                *small,
                numbers,
                tf.constant(worker_slice(rows, worker.rank, world)[0]),
                *(tf.constant(COUNT, tf.float32), tf.constant(7, tf.int64)),
                tf.constant(3, tf.int64),
                worker.rank * (COUNT // world),
            )
            for worker in engines
        ]
        sums.append([sum(gradient) for gradient in zip(*(part[2] for part in parts), strict=True)])
    for one, two in zip(*sums, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def losses(small, epoch: int, **more) -> list[float]:
    settings = resolve({"model": "ffnn", "recipe": "notebook", **more})
    rows = batches(example_order(1, 0, COUNT), 10)
    return Engine(settings, total_steps=5).train_span(small, rows, 0, epoch).loss_sum.tolist()


OFF = {name: value for name, value in config.AS_BEFORE.items() if name.startswith("augment_")}


def test_the_engine_moves_images_anew_in_each_epoch_and_only_if_asked(small):
    plain = {"dataset": "fashion-mnist"}
    assert losses(small, 0, **plain) == losses(small, 1, **plain)
    first = losses(small, 0, **ALL)
    assert first == losses(small, 0, **ALL)
    others = [losses(small, 1, **ALL), losses(small, 0, **plain)]
    others += [losses(small, 0, **{**ALL, name: OFF[name]}) for name in OFF]
    assert len({tuple(row) for row in (first, *others)}) == 3 + len(OFF)


def test_the_engine_sees_what_augmented_gives(small, rows):
    """Training on images that were moved beforehand is the same to the bit."""
    images = augmented(rows.images, drawn(1, 6), Augmentation(shift=2, flip=True)).numpy()
    moved = DeviceSplit.load(Split(images, rows.labels))
    assert losses(small, 6, **BOTH) == losses(moved, 6, dataset="fashion-mnist")


def test_evaluation_is_never_augmented(small):
    plain, other = (Engine(resolve({"model": "ffnn", **more}), total_steps=1) for more in ({}, ALL))
    assert plain.evaluate(small) == other.evaluate(small)


def test_an_engine_fits_only_runs_that_augment_alike():
    begun = Engine(resolve({"model": "ffnn", **ALL}), total_steps=1)
    assert begun.fits(resolve({"model": "ffnn", **ALL, "seed": 5}), 10)
    for name, value in OFF.items():
        assert not begun.fits(resolve({"model": "ffnn", **ALL, name: value}), 10)


def test_a_run_that_was_interrupted_goes_on_with_the_same_images(tmp_path, mnist):
    """In its first epoch, and in its second; and the epochs of a run differ."""
    more = {"model": "ffnn", "limit_train": 600, **ALL, **DIGITS}
    whole = train(tmp_path, "whole", **more)
    assert whole["augment_shift"] == 2
    for spans in (0, 2):
        name = f"stopped-{spans}"
        with pytest.raises(StopRequestedError):
            train(tmp_path, name, **more, stop_requested=stop_after(spans))
        train(tmp_path, name, **more)
        assert result_of(tmp_path / name)["weights_sha256"] == whole["weights_sha256"]
    plain = train(tmp_path, "plain", **{**more, **OFF})
    assert plain["weights_sha256"] != whole["weights_sha256"]


def test_digits_are_not_mirrored(lenet, tmp_path):
    done = lenet("train", "--augment-flip", "horizontal", cwd=tmp_path)
    assert done.returncode == 2
    assert "--augment-flip 'horizontal': a mirrored digit of mnist is another sign" in done.stderr
    assert set(config.DIGITS) == {name for name, dataset in CATALOGUE.items() if dataset.is_digits}
    assert set(CATALOGUE) | {"own"} == set(config.DATASETS)


def test_a_sweep_searches_it_and_refuses_to_mirror_digits_before_it_starts(tmp_path, mnist):
    space = tmp_path / "space.toml"
    space.write_text(
        '[augment_shift]\nlow = 0\nhigh = 4\n[augment_flip]\nvalues = ["none", "horizontal"]\n'
    )
    given = {"space": str(space), "storage": str(tmp_path / "runs"), "search": "grid"}
    with pytest.raises(InputError, match="a mirrored digit of mnist"):
        prepare_sweep(given)
    space.write_text("[augment_shift]\nlow = 0\nhigh = 4\n")
    opened = prepare_sweep(given)
    assert opened.trials == 3
    points = [opened.space.parameters[0].at(unit) for unit in (0.0, 0.5, 0.999)]
    assert [resolve({"augment_shift": point}).augment_shift for point in points] == [0, 2, 4]


def test_the_loop_passes_on_its_epoch(tmp_path, mnist, monkeypatch):
    epochs = []
    train_span = engine.Engine.train_span

    def noting(self, data, rows, first_step, epoch):
        epochs.append(epoch)
        return train_span(self, data, rows, first_step, epoch)

    monkeypatch.setattr(engine.Engine, "train_span", noting)
    train(tmp_path, "r", model="ffnn", epochs=3, limit_train=100, augment_shift=1)
    assert sorted(set(epochs)) == [0, 1, 2]
