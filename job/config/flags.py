"""Options that commands share; those of `lenet train` and `lenet sweep` are fields of settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from job.config.config import RECIPES
from job.config.fields import checked_place, flag


def options_of(fields: dict[str, dataclasses.Field]) -> Callable[[Callable], Callable]:
    """Adds an option for each field of a class of settings; values are checked there, not here."""
    by_recipe = {name for models in RECIPES.values() for used in models.values() for name in used}

    def with_options(command: Callable) -> Callable:
        for field in reversed(fields.values()):
            if field.metadata["hidden"]:
                continue
            default: Any = field.default
            help_text = field.metadata["help"]
            is_switch = field.metadata["metavar"] is None
            if field.name in by_recipe:
                help_text += "  [by recipe]"
            elif default is not None:
                help_text += f"  [{('off', 'on')[default] if is_switch else default}]"
            spelling = flag(field.name)
            if is_switch:
                # None, unless one of the two is given.
                add = click.option(
                    f"{spelling}/{flag(f'no_{field.name}')}",
                    field.name,
                    default=None,
                    help=help_text,
                )
            else:
                add = click.option(
                    spelling, field.name, metavar=field.metadata["metavar"], help=help_text
                )
            command = add(command)
        return command

    return with_options


def verbose_option(command: Callable) -> Callable:
    """Adds `--verbose`: the frameworks' own messages are shown."""
    return click.option("--verbose", is_flag=True, help="Show the frameworks' own messages.")(
        command
    )


def json_option(command: Callable) -> Callable:
    """Adds `--json`, which the command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def model_option(command: Callable) -> Callable:
    """Adds `--model`: the user's file again, for a run whose model has parts that it defines."""
    return click.option(
        "--model",
        metavar="FILE.py:FUNCTION",
        help="The file that RUN was trained with, if its model has layers that the file defines.",
    )(command)


class Place(click.ParamType):
    """The name of a folder or a file, or a URI, as `place` reads it."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As `checked_place`."""
        return checked_place(param.opts[0] if param else "PLACE", value)


PLACE = Place()

storage_option = click.option(
    "--storage",
    type=PLACE,
    default="runs",
    metavar="PLACE",
    help="Where runs are kept: a folder, or s3://BUCKET/PREFIX.  [runs]",
)
