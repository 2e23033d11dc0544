"""`lenet models`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from job.config.config import TrainConfig
from job.config.fields import SIDES
from job.config.flags import beginnings, json_option
from job.errors import InputError
from job.models import MODELS, build_model
from job.models.source import find_source, is_own, short_name

if TYPE_CHECKING:
    import keras

MOST_CLASSES = 256


@click.command()
@click.argument("model", required=False, shell_complete=beginnings(tuple(MODELS), or_file=True))
@click.option(
    "--image-shape", default="28x28x1", metavar="HxWxC", help="Of its pictures.  [28x28x1]"
)
@click.option("--classes", default=10, metavar="N", help="Number of labels.  [10]")
@click.option("--output", default="auto", metavar="NAME", help="As of lenet train.  [auto]")
@json_option
def models(model: str | None, image_shape: str, classes: int, output: str, as_json: bool) -> None:
    """Print the layers and parameters of each model, or of MODEL: FILE.py:FUNCTION is your own."""
    shape = _parsed_shape(image_shape)
    if not 2 <= classes <= MOST_CLASSES:
        raise InputError("--classes", classes, f"must be between 2 and {MOST_CLASSES}")
    chosen = TrainConfig(model=next(iter(MODELS)) if model is None else model, output=output)
    architecture = None
    if model and is_own(model):
        from job.training.building import Order, build

        architecture = build(
            Order(
                source=find_source(model),
                image_shape=shape,
                classes=classes,
                output=chosen.output,
            )
        )
    from job.engine.runtime import start_tensorflow

    # Nothing is computed.
    start_tensorflow(device="cpu")
    from job.models.architecture import model_of

    if architecture:
        found = {short_name(chosen.model): model_of(architecture, chosen.seed)}
    else:
        names = [model] if model else list(MODELS)
        found = {name: build_model(name, image_shape=shape, classes=classes) for name in names}
    if as_json:
        print(json.dumps({name: _document(net) for name, net in found.items()}))
    else:
        _print(found)


def _parsed_shape(text: str) -> tuple[int, int, int]:
    sizes = text.lower().split("x")
    if len(sizes) != 3 or not all(size in map(str, range(1, SIDES[1] + 1)) for size in sizes):
        raise InputError(
            "--image-shape",
            text,
            f"give height, width and channels, each up to {SIDES[1]}, such as 28x28x1",
        )
    height, width, channels = map(int, sizes)
    return height, width, channels


def _document(model: keras.Model) -> dict[str, Any]:
    layers = [
        {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "output": layer.output.shape[1:],
            "parameters": layer.count_params(),
        }
        for layer in model.layers
    ]
    return {"parameters": model.count_params(), "layers": layers}


def _print(named: dict[str, keras.Model]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, model in named.items():
        table = Table(title=f"{name}: {model.count_params():,} parameters", title_justify="left")
        for column in ("layer", "kind", "activation", "output"):
            table.add_column(column)
        table.add_column("parameters", justify="right")
        for layer in model.layers:
            activation = getattr(layer, "activation", None)
            table.add_row(
                layer.name,
                type(layer).__name__,
                activation.__name__ if activation else "",
                " × ".join(str(n) for n in layer.output.shape[1:]),
                f"{layer.count_params():,}",
            )
        console.print(table)
