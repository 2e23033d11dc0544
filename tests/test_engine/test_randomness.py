"""Order and dropout are functions of seed, epoch, step and position, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.engine.runtime import start_tensorflow

start_tensorflow()

import tensorflow as tf  # noqa: E402

from job.engine.randomness import (  # noqa: E402
    PADDING,
    ExampleNoise,
    batches,
    example_order,
    worker_slice,
)
from job.engine.twin import training_twin  # noqa: E402
from job.models import build_model  # noqa: E402


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000), st.integers(1, 3000))
def test_order_is_a_permutation_that_only_seed_and_epoch_decide(seed, epoch, count):
    order = example_order(seed, epoch, count)
    assert np.array_equal(np.sort(order), np.arange(count))
    assert np.array_equal(order, example_order(seed, epoch, count))


def test_order_is_pinned():
    """The order is part of what a checkpoint means: a change would break every resumed run."""
    assert example_order(1, 0, 10).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]
    assert example_order(1, 1, 10).tolist() == [0, 6, 5, 3, 4, 9, 7, 8, 2, 1]


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 9))
def test_every_example_goes_to_exactly_one_worker_once(count, batch, world):
    rows = batches(example_order(0, 0, count), batch)
    parts = [worker_slice(rows, rank, world) for rank in range(world)]
    assert len({part.shape for part in parts}) == 1
    joined = np.concatenate(parts, axis=1)
    assert sorted(joined[joined != PADDING]) == list(range(count))
    # The workers' parts, side by side, are the global batch.
    assert np.array_equal(joined[:, :batch], rows)


@settings(max_examples=30)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 70),
)
def test_a_workers_noise_is_its_part_of_the_global_noise(seed, step, first, rows, width):
    def noise(first_position, count):
        source = ExampleNoise()
        with source.at(
            tf.constant(seed, tf.int64), tf.constant(step, tf.int64), tf.constant(first_position)
        ):
            return source.uniform(3, tf.constant(count), width).numpy()

    assert np.array_equal(noise(first, rows), noise(0, first + rows)[first:])


def test_noise_differs_by_seed_layer_step_and_position():
    def noise(seed, layer, step, position):
        source = ExampleNoise()
        with source.at(
            tf.constant(seed, tf.int64), tf.constant(step, tf.int64), tf.constant(position)
        ):
            return source.uniform(layer, tf.constant(1), 64).numpy().tobytes()

    cases = [(s, k, t, p) for s in (0, 1) for k in (0, 1) for t in (0, 1) for p in (0, 1)]
    assert len({noise(*case) for case in cases}) == len(cases)


def test_dropout_drops_its_share_and_keeps_the_mean():
    noise = ExampleNoise()
    model = build_model("ffnn", seed=1)
    dropout = training_twin(model, noise).get_layer("DROP1")
    with noise.at(tf.constant(5, tf.int64), tf.constant(9, tf.int64), tf.constant(0)):
        out = dropout(tf.ones([2000, 512]), training=True).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.8)}
    # 1,024,000 draws: five standard deviations are 0.002.
    assert (out == 0).mean() == pytest.approx(0.2, abs=0.002)
    assert np.array_equal(dropout(tf.ones([2, 512]), training=False), np.ones([2, 512]))


def test_the_twin_shares_weights_with_a_model_that_stays_plain_keras():
    model = build_model("ffnn", seed=1)
    twin = training_twin(model, ExampleNoise())
    assert [id(v) for v in twin.weights] == [id(v) for v in model.weights]
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
