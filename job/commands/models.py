"""`lenet models`."""

from __future__ import annotations

import click


@click.command()
def models() -> None:
    """Print the layers and parameters of each model."""
    from rich.console import Console
    from rich.table import Table

    from job.engine.runtime import start_tensorflow

    # Nothing is computed.
    start_tensorflow(device="cpu")
    from job.models import MODELS, build_model

    console = Console()
    for name in MODELS:
        model = build_model(name)
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
