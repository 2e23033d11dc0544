"""The config is the one place where settings are named, parsed and checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.baselines.study import prepare_study
from job.config.config import AS_BEFORE, FIELDS, TrainConfig, is_fixed
from job.config.fields import option, typed
from job.config.flags import Place
from job.config.recipes import RECIPES, USUAL_RATES, at_the_time
from job.config.resolve import command_of, resolve, resume
from job.config.xla import decided, launched
from job.errors import InputError
from job.models import MODELS
from job.runs.run import prepare_run
from tests.kit.commands import asked
from tuning.cli import COMMANDS, cli
from tuning.config import SWEEP_FIELDS
from tuning.sweep import prepare_sweep


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", MODELS)
def test_every_recipe_covers_every_model(recipe, model):
    """But `best`, which was searched for digits only."""
    if recipe in ("best", "best-1") and model == "alexnet":
        with pytest.raises(InputError, match=f"--recipe '{recipe}': has no settings for alexnet"):
            resolve({"recipe": recipe, "model": model})
        return
    config = resolve({"recipe": recipe, "model": model})
    assert RECIPES[recipe][model].items() <= config.to_dict().items()
    assert config.recipe == recipe.removesuffix("-1")


def test_notebook_recipe_is_the_notebooks():
    lenet = resolve({"recipe": "notebook"})
    assert (lenet.optimizer, lenet.learning_rate, lenet.batch_size) == ("sgd", 0.01, 32)
    assert (lenet.epochs, lenet.schedule) == (50, "constant")
    ffnn = resolve({"recipe": "notebook", "model": "ffnn"})
    assert (ffnn.optimizer, ffnn.epochs) == ("rmsprop", 10)


def test_another_optimizer_than_the_recipes_has_its_own_rate_and_no_decay():
    """Muon's decay with momentum's rate would be seventy times what was meant."""
    quick = resolve({})
    assert (quick.optimizer, quick.learning_rate, quick.weight_decay) == ("muon", 0.003, 0.05)
    for optimizer, rate in USUAL_RATES.items():
        other = resolve({"optimizer": optimizer})
        decay = quick.weight_decay if optimizer == quick.optimizer else 0.0
        assert (other.learning_rate, other.weight_decay) == (rate, decay)
        assert other.epochs == quick.epochs
    both = resolve({"optimizer": "sgd", "learning_rate": 0.2, "weight_decay": 0.01})
    assert (both.learning_rate, both.weight_decay) == (0.2, 0.01)


def test_recipes_of_before_are_as_they_were():
    """Kept sweeps hold no more than the name."""
    for recipe in ("quick-1", "notebook-1"):
        other = resolve({"recipe": recipe, "optimizer": "adam"})
        its_own = resolve({"recipe": recipe})
        assert other == dataclasses.replace(its_own, optimizer="adam")
    assert resolve({"recipe": "quick-1"}).weight_decay == 0.002
    assert resolve({"recipe": "best-1", "model": "ffnn"}).optimizer == "adam"
    assert resolve({"recipe": "best-1", "model": "ffnn", "optimizer": "sgd"}).learning_rate == 0.1


def test_a_recipes_name_means_what_it_meant_in_a_state():
    assert [at_the_time("quick", state) for state in (1, 2, 3)] == ["quick-1", "quick", "quick"]
    assert [at_the_time("best", state) for state in (1, 2, 3)] == ["best-1", "best-1", "best"]


@pytest.mark.parametrize(
    "chosen", [{}, {"optimizer": "adam"}, {"optimizer": "momentum", "learning_rate": 0.003}]
)
def test_the_command_that_is_named_trains_the_same(chosen):
    config = decided(resolve(chosen))
    assert decided(asked(command_of(config))) == config


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
    except InputError as refused:
        error = refused
    else:
        error = None
    if error:
        assert str(error).startswith("--" + field.replace("_", "-"))
        return
    kept = getattr(config, field)
    assert not (isinstance(kept, float) and not math.isfinite(kept))


def places() -> Iterator[click.Parameter]:
    for command in (cli.get_command(click.Context(cli), name) for name in COMMANDS):
        yield from (one for one in command.params if one.metavar in ("PLACE", "FOLDER", "FILE"))


def test_every_option_that_names_a_place_knows_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    fields = {**FIELDS, **SWEEP_FIELDS}
    options = list(places())
    assert {"storage", "data", "out", "space", "cluster_file", "config_file"} == {
        one.name for one in options
    }
    for one in options:
        if isinstance(one.type, Place):
            read = one.type.convert("~/x", one, None)
        else:
            read = fields[one.name].metadata["parse"]("~/x")
        assert read == "/home/me/x"


def test_data_in_the_home_folder_are_looked_for_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"data": "~/mine", "storage": str(tmp_path)}
    assert prepare_run(given).config.data == str(tmp_path / "mine")
    for prepare in (prepare_sweep, prepare_study):
        with pytest.raises(InputError, match=f"{tmp_path}/mine': no such folder"):
            prepare(given)


@pytest.mark.parametrize("written", ["s3:/bucket/x", "s3:bucket", "gs:/b", "https:/h"])
def test_a_uri_that_lost_its_slashes_is_no_folder(written):
    with pytest.raises(InputError, match=r"did you mean \w+://\w+"):
        TrainConfig(storage=written)


def test_resume_takes_the_runs_own_settings_and_refuses_others():
    stored = resolve({"epochs": 3, "name": "a"}).to_dict()
    assert resume(stored, {"name": "a"}).epochs == 3
    assert resume(stored, {"epochs": "3"}).epochs == 3
    assert resume(stored, {"checkpoint_every": "9s"}).checkpoint_every == "9s"
    with pytest.raises(InputError, match=r"--epochs '4': run 'a' was started with 3"):
        resume(stored, {"epochs": "4"})


# What commit ca20467 had as defaults, which the digests of its runs leave out.
THEN = {
    **{"model": "lenet5", "dataset": "mnist", "recipe": "quick", "epochs": 10, "batch_size": 128},
    **{"optimizer": "momentum", "learning_rate": 0.1, "schedule": "warmup-cosine"},
    **{"weight_decay": 0.0, "label_smoothing": 0.0, "augment_shift": 0, "augment_flip": "none"},
    **{"precision": "float32", "seed": 1, "limit_train": None, "patience": None},
}
QUICK = {"epochs": 8, "weight_decay": 0.002, "label_smoothing": 0.05}
OTHER = {
    **{"model": "alexnet", "dataset": "cifar10", "recipe": "notebook", "epochs": 100},
    **{"batch_size": 32, "optimizer": "adam", "learning_rate": 0.001, "schedule": "constant"},
    **{"augment_shift": 4, "augment_flip": "horizontal", "precision": "mixed_bfloat16"},
    **{"seed": 7, "limit_train": 600, "patience": 10},
}
DIGESTS = [
    ({}, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    (QUICK, "3339f70b4ae955d19f0c24e182fbaf6e173c21cb0c7b29d12f47c2a6b0d21b32"),
    (OTHER, "83a7b0bb2596b8fbe603d89249e2a2caf33f437eefba159c252914248d6bbe7f"),
]


@pytest.mark.parametrize(("settings", "digest"), DIGESTS)
def test_the_digest_is_that_of_commit_ca20467(settings, digest):
    assert TrainConfig.kept({**THEN, **settings}).digest == digest


def test_a_setting_that_is_added_means_as_before_in_runs_that_do_not_have_it():
    """Whatever its default is. Which setting decides the result is said once, for new ones too."""
    assert AS_BEFORE.keys() == {name for name in FIELDS if is_fixed(name)}
    assert TrainConfig.kept({}).fixed_dict() == AS_BEFORE

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(TrainConfig):
        batch_size: int = option(256, FIELDS["batch_size"].metadata["parse"], "")
        deterministic: bool = option(False, FIELDS["deterministic"].metadata["parse"], "")

    assert Later.kept(THEN).digest == TrainConfig.kept(THEN).digest
    assert Later().digest != TrainConfig().digest


def test_digest_tells_jobs_apart_and_ignores_where_they_run():
    config = resolve({})
    elsewhere = {"storage": "elsewhere", "name": "x", "device": "cpu", "gpus_per_worker": 0.5}
    assert resolve(elsewhere).digest == config.digest
    for other in ({"seed": 2}, {"deterministic": False}, {"xla": True}):
        assert resolve(other).digest != config.digest
    # Before it is decided as well as after.
    assert {resolve({"xla": xla}).digest for xla in (None, False)} == {config.digest}


# Beyond today's limits; other versions may have had others.
BEYOND = {
    "gpus_per_worker": (2, "at most 1: a worker computes on one GPU, and --workers N uses N"),
    "hang_timeout": (0.5, "at least 1"),
    "augment_shift": (9, "between 0 and 8"),
    "batch_size": (70_000, "between 1 and 60000"),
    "learning_rate": (1e9, "at most 100"),
}


@pytest.mark.parametrize("field", BEYOND)
def test_limits_hold_for_what_is_given_and_not_for_what_was_kept(field):
    value, why = BEYOND[field]
    kept = {**resolve({"name": "a"}).to_dict(), field: value}
    assert getattr(TrainConfig.kept(kept), field) == value
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')} '{value}': must be {why}"):
        resolve({field: str(value)})
    with pytest.raises(InputError, match=why):
        resume(resolve({"name": "a"}).to_dict(), {field: value})


def test_a_run_goes_on_within_todays_limits_of_where_it_is_trained():
    """What decides the result was within the limits when the run began, and can't be changed."""
    kept = {**resolve({"name": "a"}).to_dict(), "batch_size": 70_000}
    assert resume(kept, {"name": "a"}).batch_size == 70_000
    kept["gpus_per_worker"] = 2
    with pytest.raises(InputError, match=r"--gpus-per-worker '2\.0': must be at most 1"):
        resume(kept, {"name": "a"})
    assert resume(kept, {"gpus_per_worker": "1"}).gpus_per_worker == 1


def test_switches_are_typed_as_they_are_read():
    assert typed("xla", True) == ("--xla",)
    assert typed("weight_decay", 0.1) == ("--weight-decay", "0.1")
    command = command_of(launched(resolve({"deterministic": False, "xla": True}), "gpu"))
    assert command == "lenet train --model lenet5 --recipe quick --no-deterministic --xla"
    begun = launched(resolve({"name": "a"}), "cpu").to_dict()
    with pytest.raises(InputError, match=r"^--xla: run 'a' was started with --no-xla; leave"):
        resume(begun, {"xla": True})
    with pytest.raises(InputError, match=r"^--no-deterministic: run 'a' was started with --determ"):
        resume(begun, {"deterministic": False})


@pytest.mark.parametrize(
    ("kind", "capability", "workers", "used"),
    [
        ("cpu", None, "1", False),
        ("gpu", (9, 0), "1", True),
        # Nobody can tell whether it works, and whether it pays.
        ("gpu", None, "1", False),
        ("gpu", (9, 0), "2", False),
        ("gpu", (9, 0), "1:2", False),
    ],
)
def test_xla_is_decided_when_a_run_starts(kind, capability, workers, used):
    begun = launched(resolve({"workers": workers}), kind, capability)
    assert begun.xla is used
    # And stays as it was, elsewhere too.
    assert launched(begun, "cpu").xla is launched(begun, "gpu", (8, 0)).xla is used
    asked = resolve({"workers": workers, "xla": not used})
    assert launched(asked, kind, capability).xla is not used
    assert ("--xla" in command_of(begun, "cpu (AMD EPYC)")) is used
    # There it would be the default.
    assert ("--no-xla" in command_of(begun, "gpu (NVIDIA H100)")) is not used


XLA_FAILS = {
    "max pooling": ({"model": "alexnet"}, (9, 0), "max pooling on GPUs, which alexnet needs; take"),
    "too new": ({}, (10, 0), "does not know GPUs of compute capability 10.0; take --no-xla"),
}


@pytest.mark.parametrize("case", XLA_FAILS)
def test_xla_is_refused_where_it_can_not_work_and_not_taken_by_default(case):
    settings, capability, why = XLA_FAILS[case]
    asked = resolve({**settings, "xla": True})
    with pytest.raises(InputError, match=f"^--xla: .*{why}"):
        launched(asked, "gpu", capability)
    assert launched(resolve(settings), "gpu", capability).xla is False
    assert launched(asked, "cpu").xla is True
    assert launched(resolve({**settings, "deterministic": False}), "gpu", (9, 0)).xla is True
