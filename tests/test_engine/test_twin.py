"""Layers that see more than one example: they see the whole batch, however it is divided."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

from job.config.resolve import resolve  # noqa: E402
from job.data.files import Split  # noqa: E402
from job.engine.device_split import DeviceSplit  # noqa: E402
from job.engine.engine import Engine  # noqa: E402
from job.engine.randomness import batches  # noqa: E402
from job.engine.twin import check_layers, noise_by_worker, whole_batch_layers  # noqa: E402
from job.errors import InputError  # noqa: E402
from job.models import MODELS, build_model  # noqa: E402
from job.models.architecture import Architecture, sees_whole_batch  # noqa: E402
from tests.test_cluster.test_collectives import free_address  # noqa: E402

SHAPE = (12, 12, 1)
BATCH = 16


def residual(*more: layers.Layer) -> keras.Model:
    """With normalisation, a skip, a shared layer, a nested model and a regulariser."""
    images = keras.Input(SHAPE)
    shared = layers.Conv2D(4, 3, padding="same", kernel_regularizer=keras.regularizers.L2(0.01))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(4, 3, padding="same")(images))
    for layer in more:
        x = layer(x)
    x = layers.ReLU()(x + shared(shared(x)))
    block = keras.Sequential([layers.Conv2D(8, 3), layers.BatchNormalization(scale=False)])
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.ReLU()(block(x))))
    return keras.Model(images, layers.Dense(10, activation="softmax")(x), name="residual")


def examples(count: int = 200) -> Split:
    random = np.random.default_rng(1)
    labels = random.integers(0, 10, count)
    noise = random.integers(0, 100, (count, *SHAPE))
    return Split((noise + 15 * labels[:, None, None, None]).astype(np.uint8), labels.astype(int))


def engine(model: keras.Model, **more) -> Engine:
    settings = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.05}
    settings |= {"batch_size": BATCH, "label_smoothing": 0, "augment_shift": 0}
    config = resolve(settings)
    made = Engine(
        config,
        total_steps=100,
        image_shape=SHAPE,
        architecture=Architecture(model.to_json()),
        **more,
    )
    made.restore(
        dict(zip(made.weights(), model.get_weights(), strict=True)), made.optimizer_arrays()
    )
    return made


# 200 examples: twelve whole batches and half a one, four times.
ROWS = np.concatenate([batches(np.arange(200, dtype=np.int32), BATCH)] * 4)


def test_it_trains_as_keras_fit_does():
    keras.utils.set_random_seed(1)
    model, data = residual(), examples()
    ours = engine(model)
    losses = ours.train_span(DeviceSplit.load(data), ROWS, 0).loss_sum
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", jit_compile=False)
    images = data.images.astype(np.float32) / 255
    for _ in range(4):
        model.fit(images, data.labels, batch_size=BATCH, shuffle=False, verbose=0)
    assert len(losses) == 52
    assert losses[-13:].mean() < 0.7 * losses[:13].mean()
    mine = ours.evaluate(DeviceSplit.load(data))[0]
    theirs = keras.losses.sparse_categorical_crossentropy(data.labels, model(images)).numpy().mean()
    assert mine == pytest.approx(theirs, abs=1e-5)
    for path, array, variable in zip(
        ours.weights(), ours.weights().values(), model.weights, strict=True
    ):
        np.testing.assert_allclose(array, variable.numpy(), atol=2e-5, err_msg=path)


def test_the_users_layers_stay_plain_keras():
    ours = engine(residual())
    kinds = {type(layer).__module__.partition(".")[0] for layer in ours.model.layers}
    assert kinds == {"keras"}
    kinds = [type(layer).__name__ for layer in ours.model.layers]
    assert "BatchNormalization" in kinds


def test_statistics_go_on_exactly_where_they_were():
    keras.utils.set_random_seed(1)
    model, data = residual(), DeviceSplit.load(examples())
    whole = engine(model)
    whole.train_span(data, ROWS, 0)
    first = engine(model)
    first.train_span(data, ROWS[:20], 0)
    second = engine(residual())
    second.restore(
        dict(zip(second.weights(), first.weights().values(), strict=True)),
        dict(zip(second.optimizer_arrays(), first.optimizer_arrays().values(), strict=True)),
    )
    second.train_span(data, ROWS[20:], 20)
    for one, other in zip(whole.weights().values(), second.weights().values(), strict=True):
        assert np.array_equal(one, other)


WORKER = """
import json, sys
from cluster.tf_config import set_tf_config
set_tf_config(sys.argv[2:], int(sys.argv[1]))
from job.engine.runtime import distribution, start_tensorflow
start_tensorflow()
strategy = distribution(2)
import keras, numpy as np
from tests.test_engine import test_twin as t
keras.utils.set_random_seed(1)
ours = t.engine(t.residual(), strategy=strategy, rank=int(sys.argv[1]), world=2)
losses = ours.train_span(t.DeviceSplit.load(t.examples()), t.ROWS, 0).loss_sum
print(json.dumps([losses.tolist(), [w.tolist() for w in ours.weights().values()]]), flush=True)
"""


@pytest.mark.timeout(300)
def test_two_workers_normalise_over_the_batch_of_both():
    addresses = [free_address(), free_address()]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), *addresses],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    (losses, weights), other = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert [losses, weights] == other
    keras.utils.set_random_seed(1)
    alone = engine(residual())
    expected = alone.train_span(DeviceSplit.load(examples()), ROWS, 0).loss_sum
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for one, array in zip(weights, alone.weights().values(), strict=True):
        np.testing.assert_allclose(one, array, atol=2e-5)


RANDOM = {
    "gaussian noise": layers.GaussianNoise(0.2),
    "gaussian dropout": layers.GaussianDropout(0.3),
    "alpha dropout": layers.AlphaDropout(0.3),
    "spatial dropout": layers.SpatialDropout2D(0.3),
    "dropout of whole maps": layers.Dropout(0.3, noise_shape=(None, 1, 1, 4)),
    "rotation": layers.RandomRotation(0.1),
    "translation": layers.RandomTranslation(0.1, 0.1),
    "flip": layers.RandomFlip("horizontal"),
    "zoom": layers.RandomZoom(0.1),
}


@pytest.mark.parametrize("kind", RANDOM)
def test_noise_is_a_function_of_where_training_stands(kind):
    """So a run that goes on has the noise that it would have had."""
    keras.utils.set_random_seed(1)
    model, data = residual(RANDOM[kind]), DeviceSplit.load(examples())
    whole, halves = engine(model), engine(model)
    losses = whole.train_span(data, ROWS[:6], 0).loss_sum
    first = halves.train_span(data, ROWS[:3], 0).loss_sum
    again = engine(model)
    again.restore(
        dict(zip(again.weights(), halves.weights().values(), strict=True)),
        dict(zip(again.optimizer_arrays(), halves.optimizer_arrays().values(), strict=True)),
    )
    second = again.train_span(data, ROWS[3:6], 3).loss_sum
    assert np.array_equal(losses, [*first, *second])
    assert len(again.weights()) == len(residual().weights)
    elsewhere = engine(model).train_span(data, ROWS[:3], 1).loss_sum
    assert not np.array_equal(first, elsewhere)
    assert whole.evaluate(data) == whole.evaluate(data)


@pytest.mark.parametrize(
    ("more", "is_whole", "noisy"),
    [
        ((), True, []),
        ((layers.Dropout(0.2),), True, []),
        (
            (layers.RandomFlip("horizontal"), layers.SpatialDropout2D(0.2)),
            True,
            ["RandomFlip", "SpatialDropout2D"],
        ),
    ],
)
def test_what_sees_more_than_an_example_is_known_without_keras(more, is_whole, noisy):
    model = residual(*more)
    assert sees_whole_batch(Architecture(model.to_json())) == is_whole
    assert bool(whole_batch_layers(model)) == is_whole
    assert noise_by_worker(model) == noisy


def test_built_in_models_see_each_example_alone():
    for name in MODELS:
        model = build_model(name)
        assert not sees_whole_batch(Architecture(model.to_json()))
        assert not whole_batch_layers(model)


def test_dropout_keeps_its_masks_and_its_lanes():
    images = keras.Input(SHAPE)
    x = layers.Dropout(0.5)(layers.Flatten()(images))
    model = keras.Model(images, layers.Dense(10, activation="softmax")(x))
    data = DeviceSplit.load(examples())
    losses = [engine(model, parts=parts).train_span(data, ROWS[:3], 0).loss_sum for parts in (1, 2)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("kind", [layers.LayerNormalization, layers.GroupNormalization])
def test_normalisation_of_each_example_needs_nothing(kind):
    images = keras.Input(SHAPE)
    x = layers.Conv2D(32, 3)(images)
    model = keras.Model(images, layers.Dense(10, activation="softmax")(layers.Flatten()(kind()(x))))
    check_layers(model)
    data = DeviceSplit.load(examples())
    losses = [engine(model, parts=parts).train_span(data, ROWS[:3], 0).loss_sum for parts in (1, 2)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (layers.Dense(4, activity_regularizer="l2"), "has an activity_regularizer"),
        (layers.ActivityRegularization(0.1), "has an activity_regularizer"),
        (layers.SpectralNormalization(layers.Dense(4)), "has weights that are not trained"),
        (layers.BatchNormalization(renorm=True), "renormalises"),
    ],
)
def test_what_cannot_be_trained_so_is_refused(layer, why):
    images = keras.Input(SHAPE)
    x = layer(layers.Flatten()(images))
    model = keras.Model(images, layers.Dense(10, activation="softmax")(x))
    with pytest.raises(InputError, match=why):
        check_layers(model)


def test_attention_with_dropout_within_is_refused():
    images = keras.Input(SHAPE)
    x = layers.Reshape((12, 12))(images)
    for dropout, is_fit in ((0.0, True), (0.1, False)):
        y = layers.MultiHeadAttention(2, 4, dropout=dropout)(x, x)
        model = keras.Model(images, layers.Dense(10)(layers.Flatten()(y)))
        if is_fit:
            check_layers(model)
        else:
            with pytest.raises(InputError, match="has weights and draws random numbers"):
                check_layers(model)


def test_rows_that_fill_up_a_batch_do_not_count():
    keras.utils.set_random_seed(1)
    model, data = residual(), DeviceSplit.load(examples())
    rows = ROWS[:1].copy()
    rows[0, 5:] = -1
    short = engine(model)
    short.train_span(data, rows, 0)
    exact = engine(model)
    exact.train_span(data, rows[:, :5], 0)
    for one, other in zip(short.weights().values(), exact.weights().values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert tf.executing_eagerly()
