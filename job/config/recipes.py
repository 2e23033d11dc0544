"""Settings to start from, by recipe and model. What is not in a recipe is at its default.

notebook: those of S. Jansen's notebooks ("MNIST with FFNN and LeNet5"; for AlexNet its successor,
    "Image classification with AlexNet"), at Keras' default rates. The batch of the FFNN is not on
    record. AlexNet's early stopping looked at the accuracy there, and looks at the loss here.
best: the highest accuracy on digits, whatever the time; chosen as quick's.
quick: chosen on validation accuracy (docs/studies/recipes.md); AlexNet's is not searched
    (docs/studies/fashion.md).
quick-1, notebook-1, best-1: what they were before November 28, 2026; of best only the FFNN's is
    another. Sweeps that began then go on with them, and studies of then are repeated with them.

A learning rate and a weight decay are those of an optimizer: where another one than the recipe's is
named, its rate is of `USUAL_RATES` and it has no decay; but with quick-1 and notebook-1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Of pictures of digits: how they may be bent and still be read.
BENT = {
    "augment_shift": 2,
    "augment_rotate": 8.0,
    "augment_scale": 0.08,
    "augment_elastic": 0.6,
}
# Rates of an optimizer with which nets learn that are as small as these, with a warm-up.
USUAL_RATES = {"sgd": 0.1, "momentum": 0.05, "rmsprop": 0.001, "adam": 0.001, "muon": 0.003}
# A model of the user's, of which nothing is known: what seldom goes wrong.
OWN = "own"
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "notebook": {
        "lenet5": {
            "epochs": 50,
            "batch_size": 32,
            "optimizer": "sgd",
            "learning_rate": 0.01,
            "schedule": "constant",
        },
        "ffnn": {
            "epochs": 10,
            "batch_size": 128,
            "optimizer": "rmsprop",
            "learning_rate": 0.001,
            "schedule": "constant",
        },
        "alexnet": {
            "epochs": 100,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "constant",
            "patience": 10,
        },
    },
    "quick": {
        "lenet5": {
            "epochs": 3,
            "batch_size": 128,
            "optimizer": "muon",
            "learning_rate": 0.003,
            "schedule": "warmup-cosine",
            "weight_decay": 0.05,
            "label_smoothing": 0.05,
            "augment_shift": 1,
        },
        "ffnn": {
            "epochs": 10,
            "batch_size": 128,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "warmup-cosine",
        },
        "alexnet": {
            "epochs": 8,
            "batch_size": 128,
            "optimizer": "momentum",
            "learning_rate": 0.02,
            "schedule": "warmup-cosine",
            "weight_decay": 0.0005,
        },
        OWN: {
            "epochs": 10,
            "batch_size": 128,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "warmup-cosine",
        },
    },
    "best": {
        "lenet5": {
            "epochs": 50,
            "batch_size": 128,
            "optimizer": "momentum",
            "learning_rate": 0.1,
            "schedule": "warmup-cosine",
            "weight_decay": 0.001,
            "label_smoothing": 0.1,
            "best_by": "accuracy",
            "validation": 0.05,
            **BENT,
        },
        "ffnn": {
            "epochs": 50,
            # Muon's part of a step costs the same for any number of images.
            "batch_size": 512,
            "optimizer": "muon",
            "learning_rate": 0.002,
            "schedule": "warmup-cosine",
            "weight_decay": 0.05,
            # Without smoothed labels the loss tells epochs apart; of 3,000 rows two or three decide
            # by accuracy.
            "best_by": "loss",
            "validation": 0.05,
            **BENT,
        },
    },
}
RECIPES["notebook-1"] = RECIPES["notebook"]
RECIPES["quick-1"] = {
    **RECIPES["quick"],
    "lenet5": {
        "epochs": 8,
        "batch_size": 128,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "schedule": "warmup-cosine",
        "weight_decay": 0.002,
        "label_smoothing": 0.05,
    },
}
RECIPES["best-1"] = {
    **RECIPES["best"],
    "ffnn": {
        "epochs": 50,
        "batch_size": 128,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "schedule": "warmup-cosine",
        "label_smoothing": 0.1,
        "best_by": "accuracy",
        "validation": 0.05,
        **BENT,
    },
}


class Former(NamedTuple):
    """What a recipe was before: its name of today, as its runs say, and the state when it went."""

    now: str
    gone: int


FORMER = {
    "notebook-1": Former("notebook", 2),
    "quick-1": Former("quick", 2),
    "best-1": Former("best", 3),
}
# The state of all recipes, from 1, which sweeps keep.
STATE = 3


def today(recipe: str) -> str:
    """The name of today for a recipe, which may be one of before."""
    return FORMER[recipe].now if recipe in FORMER else recipe


def at_the_time(recipe: str, state: int) -> str:
    """What a recipe of a state is called now."""
    was = (old for old, one in FORMER.items() if one.now == recipe and state < one.gone)
    return next(was, recipe)


def gives_own_rates(recipe: str) -> bool:
    """Whether another optimizer than the recipe's has its own rate: since the second state."""
    return recipe not in FORMER or FORMER[recipe].gone > 2
