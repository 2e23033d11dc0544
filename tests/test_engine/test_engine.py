"""The engine against plain Keras, and against itself cut into other spans."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from job.engine.runtime import start_tensorflow

start_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from job.config.config import OPTIMIZERS, TrainConfig  # noqa: E402
from job.config.resolve import resolve  # noqa: E402
from job.engine.device_split import DeviceSplit  # noqa: E402
from job.engine.engine import Engine  # noqa: E402
from job.engine.optimizers import MOMENTUM, MuonForKernels, WarmupCosine  # noqa: E402
from job.engine.randomness import batches, example_order  # noqa: E402
from job.engine.scoring import cross_entropy, cross_entropy_of_logits, predict  # noqa: E402
from job.models import build_model  # noqa: E402
from job.runs.state import sha256_of  # noqa: E402

ROWS = 100
BATCH = 32


# Keras' own, each as a function of learning rate and weight decay.
KERAS = {
    "sgd": lambda rate, decay: keras.optimizers.SGD(rate, weight_decay=decay),
    "momentum": lambda rate, decay: keras.optimizers.SGD(
        rate, momentum=MOMENTUM, nesterov=True, weight_decay=decay
    ),
    "rmsprop": lambda rate, decay: keras.optimizers.RMSprop(rate, weight_decay=decay),
    "adam": lambda rate, decay: keras.optimizers.Adam(rate, weight_decay=decay),
}


def plain(settings: dict) -> TrainConfig:
    """A config without the quick recipe's regularisation, unless it is asked for."""
    return resolve({"recipe": "notebook", **settings})


@pytest.fixture(scope="module")
def small(splits):
    train = splits[0]
    return type(train)(train.images[:ROWS], train.labels[:ROWS])


def trained(config, small, cuts=()) -> Engine:
    """An engine after one epoch over the small split, in spans that end at `cuts`."""
    rows = batches(example_order(config.seed, 0, len(small)), config.batch_size)
    engine = Engine(config, total_steps=len(rows))
    data = DeviceSplit.load(small)
    edges = [0, *cuts, len(rows)]
    for start, end in itertools.pairwise(edges):
        engine.train_span(data, rows[start:end], start)
    return engine


@pytest.mark.parametrize("optimizer", KERAS)
@pytest.mark.parametrize("schedule", ["constant", "warmup-cosine"])
def test_an_epoch_equals_plain_keras(optimizer, schedule, small):
    """The oracle is Keras' own `train_on_batch`, last partial batch included."""
    rate = 0.001 if optimizer in ("rmsprop", "adam") else 0.01
    config = plain(
        {"optimizer": optimizer, "schedule": schedule, "learning_rate": rate, "batch_size": BATCH}
    )
    engine = trained(config, small)
    rows = batches(example_order(config.seed, 0, ROWS), BATCH)
    model = build_model("lenet5", seed=config.seed)
    # So few steps have no warm-up.
    cosine = keras.optimizers.schedules.CosineDecay(rate, len(rows))
    keras_rate = rate if schedule == "constant" else cosine
    model.compile(KERAS[optimizer](keras_rate, None), "sparse_categorical_crossentropy")
    for row in rows:
        chosen = row[row >= 0]
        model.train_on_batch(small.images[chosen] / np.float32(255), small.labels[chosen])
    for ours, theirs in zip(engine.weights().values(), model.get_weights(), strict=True):
        # Float32 rounding over four steps, which rmsprop and adam blow up where a gradient is near
        # 0; a wrong weight of the last batch is 100 times this.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # What a checkpoint keeps of the optimizer means the same, too.
    pairs = zip(engine.optimizer.variables, model.optimizer.variables, strict=True)
    for ours, theirs in pairs:
        assert ours.name == theirs.name
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 5, 2, 7), (50, 7), (7,)])
def test_muon_takes_a_kernel_as_keras_takes_the_matrix_it_is(shape):
    """And a matrix or a bias as Keras takes these, over some steps with decay."""
    random = np.random.default_rng(3)
    start, *gradients = random.normal(size=(4, *shape)).astype(np.float32)
    flat = shape if len(shape) == 1 else (-1, shape[-1])
    ours, theirs = (keras.Variable(start.reshape(s)) for s in (shape, flat))
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "adam_weight_decay": 0.1}
    for variable, optimizer in (
        (ours, MuonForKernels(**settings)),
        (theirs, keras.optimizers.Muon(**settings)),
    ):
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient.reshape(variable.shape))], [variable])
    assert np.abs(ours.numpy() - start).max() > 1e-3
    np.testing.assert_allclose(ours.numpy().reshape(flat), theirs.numpy().reshape(flat), atol=1e-6)


@pytest.mark.parametrize("extra", [{"label_smoothing": 0.1}, {"weight_decay": 0.01}])
def test_regularisation_equals_plain_keras(extra, small):
    config = plain({"batch_size": BATCH, "optimizer": "sgd", "learning_rate": 0.05, **extra})
    engine = trained(config, small)
    rows = batches(example_order(config.seed, 0, ROWS), BATCH)
    model = build_model("lenet5", seed=config.seed)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    model.compile(KERAS["sgd"](config.learning_rate, config.weight_decay or None), loss)
    for row in rows:
        chosen = row[row >= 0]
        targets = np.eye(10, dtype=np.float32)[small.labels[chosen]]
        model.train_on_batch(small.images[chosen] / np.float32(255), targets)
    for ours, theirs in zip(engine.weights().values(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize("model", ["lenet5", "ffnn"])
def test_lanes_change_nothing_but_rounding(model, small):
    """Parts of unequal size, and a last batch that is smaller than the number of parts."""
    config = plain({"model": model, "batch_size": 33, "optimizer": "sgd", "learning_rate": 0.05})
    data = DeviceSplit.load(small)
    rows = batches(example_order(config.seed, 0, len(small)), config.batch_size)
    assert (rows[-1] >= 0).sum() == 1
    one, two, three = (Engine(config, total_steps=4, parts=parts) for parts in (1, 2, 3))
    metrics = [engine.train_span(data, rows, 0) for engine in (one, two, three)]
    for engine, found in zip((two, three), metrics[1:], strict=True):
        np.testing.assert_allclose(found.loss_sum, metrics[0].loss_sum, rtol=1e-5)
        assert found.correct.tolist() == metrics[0].correct.tolist()
        for ours, whole in zip(engine.weights().values(), one.weights().values(), strict=True):
            np.testing.assert_allclose(ours, whole, atol=1e-6)
        assert engine.evaluate(data) == pytest.approx(one.evaluate(data), rel=1e-5)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("model", ["lenet5", "ffnn"])
def test_spans_of_any_length_give_the_same_bits(model, xla, small):
    config = plain({"model": model, "batch_size": 8, "xla": xla})
    whole = trained(config, small)
    cut = trained(config, small, cuts=(1, 2, 7))
    assert sha256_of(whole.weights().values()) == sha256_of(cut.weights().values())
    assert sha256_of(whole.optimizer_arrays().values()) == sha256_of(
        cut.optimizer_arrays().values()
    )


def test_a_step_compiled_with_xla_is_the_same_but_for_rounding(small):
    config = {"batch_size": 32, "optimizer": "momentum", "schedule": "warmup-cosine"}
    without, with_xla = (trained(plain({**config, "xla": xla}), small) for xla in (False, True))
    pairs = zip(without.weights().values(), with_xla.weights().values(), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_restored_engine_goes_on_with_the_same_bits(small):
    config = plain({"model": "ffnn", "batch_size": 8, "optimizer": "adam"})
    rows = batches(example_order(config.seed, 0, len(small)), 8)
    data = DeviceSplit.load(small)
    whole = trained(config, small)
    first = Engine(config, total_steps=len(rows))
    first.train_span(data, rows[:5], 0)
    second = Engine(config, total_steps=len(rows))
    second.restore(first.weights(), first.optimizer_arrays())
    second.train_span(data, rows[5:], 5)
    assert sha256_of(whole.weights().values()) == sha256_of(second.weights().values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "warmup-cosine"])
def test_an_engine_started_again_is_as_good_as_new(optimizer, schedule, small):
    """It trained something else before: other seed, batch size, rate and length."""
    common = {"model": "ffnn", "optimizer": optimizer, "schedule": schedule}
    before = plain({**common, "batch_size": 32, "learning_rate": 0.01, "seed": 3})
    config = plain({**common, "batch_size": 5, "learning_rate": 0.002, "seed": 4})
    engine = trained(before, small)
    assert engine.fits(config, 10)
    rows = batches(example_order(config.seed, 0, len(small)), config.batch_size)
    engine.restart(config, len(rows))
    engine.train_span(DeviceSplit.load(small), rows, 0)
    new = trained(config, small)
    assert sha256_of(engine.weights().values()) == sha256_of(new.weights().values())
    assert sha256_of(engine.optimizer_arrays().values()) == sha256_of(
        new.optimizer_arrays().values()
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_diverged_leaves_nothing_behind(optimizer, small):
    common = {"model": "lenet5", "optimizer": optimizer, "batch_size": 32}
    engine, data = trained(plain({**common, "learning_rate": 0.01}), small), DeviceSplit.load(small)
    weights = engine.weights()
    engine.restore({k: v * np.nan for k, v in weights.items()}, engine.optimizer_arrays())
    rows = batches(example_order(1, 0, len(small)), 32)
    assert not np.isfinite(engine.train_span(data, rows, 0).loss_sum).any()
    config = plain({**common, "learning_rate": 0.001, "seed": 4})
    engine.restart(config, len(rows))
    rows = batches(example_order(config.seed, 0, len(small)), 32)
    engine.train_span(data, rows, 0)
    new = trained(config, small)
    assert sha256_of(engine.weights().values()) == sha256_of(new.weights().values())


def test_an_engine_does_not_fit_what_its_functions_hold(small):
    engine = Engine(plain({}), total_steps=1)
    assert not engine.fits(plain({"weight_decay": 0.1}), 10)
    assert not engine.fits(plain({"optimizer": "adam"}), 10)
    assert not engine.fits(plain({}), 7)


def test_the_schedule_is_that_of_keras():
    """Before and after it is set anew."""
    schedule = WarmupCosine(0.3, 77)
    for peak, steps in ((0.3, 77), (0.05, 200), (1.0, 4)):
        schedule.set(peak, steps)
        warmup = steps // 10
        keras_own = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else peak,
            steps - warmup,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
        for step in range(steps + 2):
            assert float(schedule.rate(step)) == pytest.approx(
                float(keras_own(step)), rel=1e-6, abs=0
            )


def test_a_rate_is_known_within_a_step_only():
    """Keras asks for it once for each variable: it is the same tensor each time."""
    schedule = WarmupCosine(0.3, 77)
    with schedule.at(tf.constant(5, tf.int64)):
        assert schedule() is schedule()
        assert float(schedule()) == float(schedule.rate(5))
    with pytest.raises(RuntimeError, match=r"outside WarmupCosine\.at"):
        schedule()


@pytest.mark.parametrize("smoothing", [0.02, 0.15, 0.3])
def test_smoothed_targets_are_those_of_keras_to_the_bit(smoothing):
    """On processors: 0.15 / 10 in float64 is another number than in float32."""
    generator = np.random.default_rng(0)
    images = generator.random((32, 28, 28, 1), np.float32)
    labels = generator.integers(0, 10, 32)
    model = build_model("ffnn", seed=1)

    @tf.function
    def losses(images):
        probabilities = model(images)
        targets = tf.one_hot(labels, 10)
        theirs = keras.losses.categorical_crossentropy(
            targets, probabilities, label_smoothing=smoothing
        )
        return cross_entropy(tf.constant(labels), probabilities, smoothing), theirs

    ours, theirs = losses(images)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_cross_entropy_of_gpus_is_that_of_keras(smoothing):
    """Values and gradients, of saturated logits too."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(64, 10)).astype(np.float32) * np.logspace(-2, 2, 64)[:, None]
    logits = tf.constant(logits, tf.float32)
    targets = tf.one_hot(generator.integers(0, 10, 64), 10) * (1 - smoothing) + smoothing / 10
    found = []
    for loss in (
        lambda: cross_entropy_of_logits(logits, targets),
        lambda: keras.losses.categorical_crossentropy(targets, logits, from_logits=True),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = loss()
        found.append((losses.numpy(), tape.gradient(losses, logits).numpy()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_strategy_whose_replicas_are_not_the_workers_is_refused():
    """Two devices of one worker would both be given its part of the batch."""
    with pytest.raises(ValueError, match="has 1 replicas for 2 workers"):
        Engine(plain({}), total_steps=1, strategy=tf.distribute.get_strategy(), world=2)


def test_restore_refuses_arrays_of_another_model(small):
    lenet, ffnn = (Engine(plain({"model": name}), total_steps=1) for name in ("lenet5", "ffnn"))
    with pytest.raises(ValueError, match=r"don't fit the model: .*lenet5/CONV1/bias"):
        lenet.restore(ffnn.weights(), ffnn.optimizer_arrays())


def test_metrics_are_those_of_the_examples_and_not_of_the_padding(small):
    """One step over a padded batch, with a rate too small to move anything."""
    config = plain({"batch_size": 64, "optimizer": "sgd", "learning_rate": 1e-30})
    engine = Engine(config, total_steps=1)
    rows = batches(np.arange(ROWS, dtype=np.int32), 64)
    metrics = engine.train_span(DeviceSplit.load(small), rows, 0)
    probabilities = predict(engine.model, small.images)
    losses = -np.log(probabilities[np.arange(ROWS), small.labels])
    assert metrics.loss_sum[1] == pytest.approx(losses[64:].sum(), rel=1e-5)
    assert metrics.correct.sum() == (probabilities.argmax(axis=1) == small.labels).sum()


def test_evaluate_counts_each_example_once(splits):
    test = splits[2]
    part = type(test)(test.images[:1234], test.labels[:1234])
    engine = Engine(plain({}), total_steps=1)
    loss, accuracy = engine.evaluate(DeviceSplit.load(part))
    probabilities = predict(engine.model, part.images)
    assert accuracy == (probabilities.argmax(axis=1) == part.labels).mean()
    assert loss == pytest.approx(
        -np.log(probabilities[np.arange(1234), part.labels]).mean(), rel=1e-5
    )
