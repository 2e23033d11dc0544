"""The config is the one place where settings are named, parsed and checked."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.config import FIELDS, RECIPES, TrainConfig, resolve, resume
from job.errors import InputError
from job.models import MODELS


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_covers_every_model(recipe, model):
    config = resolve({"recipe": recipe, "model": model})
    assert RECIPES[recipe][model].items() <= config.to_dict().items()


def test_notebook_recipe_is_the_notebooks():
    lenet = resolve({"recipe": "notebook"})
    assert (lenet.optimizer, lenet.learning_rate, lenet.batch_size) == ("sgd", 0.01, 32)
    assert (lenet.epochs, lenet.schedule) == (50, "constant")
    ffnn = resolve({"recipe": "notebook", "model": "ffnn"})
    assert (ffnn.optimizer, ffnn.epochs) == ("rmsprop", 10)


def test_a_flag_overrides_its_recipe():
    config = resolve({"recipe": "notebook", "epochs": "3"})
    assert config.epochs == 3
    assert config.batch_size == 32


def test_unknown_setting_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'batch_size'"):
        resolve({"batchsize": 3})


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 1000),
        "batch_size": st.integers(1, 60_000),
        "learning_rate": st.floats(1e-9, 100),
        "weight_decay": st.floats(0, 1),
        "seed": st.integers(0, 2**31 - 1),
        "limit_train": st.none() | st.integers(1, 48_000),
        "checkpoint_every": st.integers(1, 10**6).map(str) | st.integers(1, 999).map("{}s".format),
        "name": st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", fullmatch=True),
    },
)


@given(SETTINGS)
def test_a_config_survives_json_and_the_command_line(settings):
    config = resolve(settings)
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    typed = {k: str(v) for k, v in config.to_dict().items() if v is not None}
    assert TrainConfig(**typed) == config


@given(
    st.sampled_from(sorted(FIELDS)),
    st.one_of(st.text(), st.floats(), st.booleans(), st.lists(st.integers())),
)
def test_any_value_is_taken_or_refused_by_name(field, value):
    try:
        config = TrainConfig(**{field: value})
    except InputError as error:
        assert str(error).startswith("--" + field.replace("_", "-"))
        return
    kept = getattr(config, field)
    assert not (isinstance(kept, float) and not math.isfinite(kept))


def test_resume_takes_the_runs_own_settings_and_refuses_others():
    stored = resolve({"epochs": 3, "name": "a"}).to_dict()
    assert resume(stored, {"name": "a"}).epochs == 3
    assert resume(stored, {"epochs": "3"}).epochs == 3
    assert resume(stored, {"checkpoint_every": "9s"}).checkpoint_every == "9s"
    with pytest.raises(InputError, match=r"--epochs '4': run 'a' was started with 3"):
        resume(stored, {"epochs": "4"})


def test_digest_tells_jobs_apart_and_ignores_where_they_run():
    config = resolve({})
    assert resolve({"storage": "elsewhere", "name": "x"}).digest == config.digest
    assert resolve({"seed": 2}).digest != config.digest
