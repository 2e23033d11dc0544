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
from job.config.config import resolve  # noqa: E402
from job.data.catalogue import CATALOGUE  # noqa: E402
from job.data.files import Split  # noqa: E402
from job.engine import engine  # noqa: E402
from job.engine.augment import augmented, draws  # noqa: E402
from job.engine.device_split import DeviceSplit  # noqa: E402
from job.engine.engine import Engine  # noqa: E402
from job.engine.randomness import AUGMENTATION, batches, example_order, philox, worker_slice  # noqa: E402
from job.errors import InputError, StopRequestedError  # noqa: E402
from tuning.sweep import prepare_sweep  # noqa: E402

BOTH = {"augment_shift": 2, "augment_flip": "horizontal", "dataset": "fashion-mnist"}
COUNT = 50


def drawn(seed: int, epoch: int, count: int = COUNT) -> np.ndarray:
    return draws(tf.constant(seed, tf.int64), tf.constant(epoch, tf.int64), count).numpy()


def images_of(count: int, shape: tuple[int, ...] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_each_image_is_moved_and_mirrored_as_drawn(shape, flip, shift):
    """The oracle pads, crops and mirrors one image after the other."""
    images, numbers = images_of(COUNT, shape), drawn(1, 0)
    found = augmented(tf.constant(images), tf.constant(numbers), shift=shift, flip=flip).numpy()
    assert found.dtype == np.uint8
    height, width, _ = shape
    for image, result, (down, right, mirror, _) in zip(images, found, numbers, strict=True):
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        top, left = (int(number * (2 * shift + 1)) for number in (down, right))
        cut = padded[top : top + height, left : left + width]
        assert np.array_equal(result, cut[:, ::-1] if flip and mirror >= 0.5 else cut)


def test_every_distance_comes_and_half_are_mirrored():
    image = np.zeros((20_000, 9, 9, 1), np.uint8)
    image[:, 4, 4] = 255
    numbers = drawn(3, 7, len(image))
    _, rows, columns, _ = np.nonzero(augmented(image, numbers, shift=2, flip=False).numpy())
    counts = np.histogram2d(rows, columns, bins=(range(2, 8), range(2, 8)))[0]
    # 800 each: five standard deviations are 139.
    assert counts.shape == (5, 5)
    assert np.abs(counts - 800).max() < 139
    image[:, 4, 0] = 9
    mirrored = augmented(image, numbers, shift=0, flip=True).numpy()[:, 4, 0, 0] == 0
    # Five standard deviations are 0.018.
    assert mirrored.mean() == pytest.approx(0.5, abs=0.018)


def test_draws_are_pinned():
    """They are part of what a checkpoint means."""
    assert drawn(1, 0)[2].tolist() == pytest.approx(PINNED, abs=1e-6)


PINNED = [0.5761624574661255, 0.7474440336227417, 0.4759221076965332, 0.17261981964111328]


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
def test_what_is_drawn_for_an_example_does_not_depend_on_how_many_there_are(seed, epoch, few, more):
    assert np.array_equal(drawn(seed, epoch, few), drawn(seed, epoch, few + more)[:few])


def test_draws_differ_by_seed_epoch_and_index_and_are_not_those_of_dropout():
    numbers = np.concatenate([drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)])
    # 800 numbers of 23 bits: two are alike once in 26 tries, four in a row never.
    assert len({row.tobytes() for row in numbers}) == 4 * COUNT
    assert AUGMENTATION == 2**16 - 1
    zero = tf.zeros([2], tf.int64)
    layers = [philox(tf.constant(1), layer, zero, COUNT, 4).numpy() for layer in (0, 2**16 - 2)]
    assert not any((layer == drawn(1, 0)).any() for layer in layers)


@given(st.integers(1, COUNT), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=20)
def test_batch_size_position_and_workers_change_no_image(count, batch, world, epoch):
    """What each worker makes of its part is what one worker makes of an image."""
    images = images_of(COUNT)
    numbers = drawn(5, epoch)
    whole = augmented(images, numbers, shift=2, flip=True).numpy()
    rows = batches(example_order(5, epoch, count), batch)
    seen = set()
    for rank in range(world):
        for row in worker_slice(rows, rank, world):
            chosen = row[row >= 0]
            part = augmented(images[chosen], numbers[chosen], shift=2, flip=True).numpy()
            assert np.array_equal(part, whole[chosen])
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
    settings = resolve({"model": "lenet5", "recipe": "notebook", "seed": 3, **BOTH})
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


def test_the_engine_moves_images_anew_in_each_epoch_and_only_if_asked(small):
    plain = {"dataset": "fashion-mnist"}
    assert losses(small, 0, **plain) == losses(small, 1, **plain)
    first = losses(small, 0, **BOTH)
    assert first == losses(small, 0, **BOTH)
    others = [losses(small, 1, **BOTH), losses(small, 0, **plain)]
    others += [
        losses(small, 0, **{**BOTH, **off})
        for off in ({"augment_shift": 0}, {"augment_flip": "none"})
    ]
    assert len({tuple(row) for row in (first, *others)}) == 5


def test_the_engine_sees_what_augmented_gives(small, rows):
    """Training on images that were moved beforehand is the same to the bit."""
    images = augmented(rows.images, drawn(1, 6), shift=2, flip=True).numpy()
    moved = DeviceSplit.load(Split(images, rows.labels))
    assert losses(small, 6, **BOTH) == losses(moved, 6, dataset="fashion-mnist")


def test_evaluation_is_never_augmented(small):
    plain, other = (
        Engine(resolve({"model": "ffnn", **more}), total_steps=1) for more in ({}, BOTH)
    )
    assert plain.evaluate(small) == other.evaluate(small)


def test_an_engine_fits_only_runs_that_augment_alike():
    begun = Engine(resolve({"model": "ffnn", **BOTH}), total_steps=1)
    assert begun.fits(resolve({"model": "ffnn", **BOTH, "seed": 5}), 10)
    for off in ({"augment_shift": 3}, {"augment_flip": "none"}):
        assert not begun.fits(resolve({"model": "ffnn", **BOTH, **off}), 10)


def test_a_run_that_was_interrupted_goes_on_with_the_same_images(tmp_path, mnist):
    """In its first epoch, and in its second; and the epochs of a run differ."""
    more = {"model": "ffnn", "augment_shift": 2, "limit_train": 600}
    whole = train(tmp_path, "whole", **more)
    assert whole["augment_shift"] == 2
    for spans in (0, 2):
        name = f"stopped-{spans}"
        with pytest.raises(StopRequestedError):
            train(tmp_path, name, **more, stop_requested=stop_after(spans))
        train(tmp_path, name, **more)
        assert result_of(tmp_path / name)["weights_sha256"] == whole["weights_sha256"]
    plain = train(tmp_path, "plain", **{**more, "augment_shift": 0})
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
