"""How a run's settings come about: what was given, over the recipe, over the defaults."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from job.config.config import DIGITS, FIELDS, TrainConfig, is_fixed
from job.config.fields import check_given, check_unchanged, flag, typed
from job.config.recipes import OWN, RECIPES, USUAL_RATES, gives_own_rates, today
from job.errors import InputError
from job.models.source import is_own


def resolve(given: Mapping[str, Any]) -> TrainConfig:
    """Builds the config of a new run: what was given, over the recipe, over the defaults.

    Raises:
        InputError: An unknown key, an unusable value, or one beyond its limits.
    """
    check_given(given, FIELDS)
    config = over_recipe(given)
    if is_own(config.model) and config.model_sha256 is None:
        raise InputError(
            "--model", config.model, "is your own, which only --model of a run or a sweep can name"
        )
    if config.output != "auto" and not is_own(config.model):
        raise InputError("--output", config.output, f"{config.model} is built in; leave it out")
    if config.augment_flip != "none" and config.dataset in DIGITS:
        raise InputError(
            flag("augment_flip"),
            config.augment_flip,
            f"a mirrored digit of {config.dataset} is another sign; leave it out",
        )
    return config


def over_recipe(chosen: Mapping[str, Any]) -> TrainConfig:
    """As `resolve`, of settings that were kept: within the limits of their time.

    Raises:
        InputError: A value is none of its kind.
        TypeError: An unknown key.
    """
    # The recipe of a model and an optimizer needs the names checked first.
    names = ("model", "recipe", "optimizer")
    named = TrainConfig(**{k: chosen[k] for k in names if k in chosen})
    recipe = RECIPES[named.recipe]
    model = OWN if is_own(named.model) else named.model
    if model not in recipe:
        raise InputError(
            "--recipe", named.recipe, f"has no settings for {named.model}; leave it out"
        )
    used = recipe[model]
    is_its_own = "optimizer" not in chosen or named.optimizer == used["optimizer"]
    if not is_its_own and gives_own_rates(named.recipe):
        used = {**used, "learning_rate": USUAL_RATES[named.optimizer], "weight_decay": 0.0}
    return TrainConfig(**{**used, **chosen, "recipe": today(named.recipe)})


def command_of(config: TrainConfig, device: str = "") -> str:
    """What to type to train a new run with the settings of this one.

    Args:
        config: Its settings.
        device: What it was trained on, in words, where that is known: on a GPU XLA is the default.
    """
    given = {"model": config.model, "recipe": config.recipe}
    if over_recipe(given).optimizer != config.optimizer:
        given["optimizer"] = config.optimizer
    usual = over_recipe(given).to_dict()
    usual["xla"] = device.startswith("gpu")
    for name, value in {
        **config.fixed_dict(),
        "data": config.data,
        "workers": config.workers,
    }.items():
        if value != usual[name] and value is not None and not FIELDS[name].metadata["hidden"]:
            given[name] = value
    return shlex.join(["lenet", "train", *(word for k, v in given.items() for word in typed(k, v))])


def resume(stored: Mapping[str, Any], given: Mapping[str, Any]) -> TrainConfig:
    """Builds the config with which an interrupted run goes on.

    Flags that were not given keep the run's own value; a given one must agree with it where it
    decides the result. What only says how it is trained is held to today's limits again.

    Raises:
        InputError: `given` names a fixed setting with another value than the run was started with,
            or something is beyond its limits.
    """
    given = {k: v for k, v in given.items() if v is not None}
    check_given(given, FIELDS)
    if "recipe" in given:
        given["recipe"] = today(given["recipe"])
    begun = TrainConfig.kept(stored)
    config = dataclasses.replace(begun, **given)
    check_unchanged(f"run {config.name!r}", begun.fixed_dict(), config.fixed_dict(), given)
    check_given({k: v for k, v in config.to_dict().items() if not is_fixed(k)}, FIELDS)
    return config
