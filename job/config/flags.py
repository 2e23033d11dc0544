"""Options that commands share; those of `lenet train` and `lenet sweep` are fields of settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from job.config.config import RECIPES
from job.config.fields import Limited, checked_place, flag
from job.config.files import read_settings


class Place(click.ParamType):
    """The name of a folder or a file, or a URI, as `place` reads it."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As `checked_place`."""
        return checked_place(param.opts[0] if param else "PLACE", value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leaves it to the shell, which knows the files that there are."""
        return [CompletionItem(incomplete, type="file")]


PLACE = Place()
# How the variables of options begin.
VARIABLES = "LENET_"
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class GroupedOption(click.Option):
    """An option that help shows among others of its group."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows options group by group; those without a group come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections of the help that list options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", ""), []).append(record)
        others = groups.pop("", [])
        for title, records in [*groups.items(), ("Options", others)]:
            with formatter.section(title):
                formatter.write_dl(records)


def options_of(fields: dict[str, dataclasses.Field]) -> Callable[[Callable], Callable]:
    """Adds an option for each field of a class of settings; values are checked there, not here."""
    by_recipe = {name for models in RECIPES.values() for used in models.values() for name in used}

    def with_options(command: Callable) -> Callable:
        for field in reversed(fields.values()):
            if not field.metadata["hidden"]:
                command = _option_of(field, field.name in by_recipe)(command)
        return command

    return with_options


def _option_of(field: dataclasses.Field, is_by_recipe: bool) -> Callable[[Callable], Callable]:
    default: Any = field.default
    metavar, parse = field.metadata["metavar"], field.metadata["parse"]
    help_text, spelling = field.metadata["help"], flag(field.name)
    if is_by_recipe:
        help_text += "  [by recipe]"
    elif default is not None:
        help_text += f"  [{('off', 'on')[default] if metavar is None else default}]"
    more: dict[str, Any] = {"metavar": metavar}
    if metavar is None:
        # None, unless one of the two is given.
        spelling, more = f"{spelling}/{flag(f'no_{field.name}')}", {"default": None}
    if isinstance(parse, Limited) and parse.names:
        more["shell_complete"] = beginnings(parse.names, or_file=parse.other is not None)
    elif metavar in COMPLETED:
        more["shell_complete"] = COMPLETED[metavar]
    return click.option(
        spelling,
        field.name,
        cls=GroupedOption,
        group=field.metadata["group"],
        envvar=variable(field.name),
        help=help_text,
        **more,
    )


def variable(name: str) -> str:
    """The environment variable that gives an option its value."""
    return f"{VARIABLES}{name.lstrip('-').upper().replace('-', '_')}"


def beginnings(names: Sequence[str], *, or_file: bool = False) -> Complete:
    """Completes one of a few names, or what the shell does where none begins so."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # The first leaves it to the shell, unless another follows.
        files = PLACE.shell_complete(ctx, param, incomplete) if or_file else []
        return [*files, *(CompletionItem(name) for name in names if name.startswith(incomplete))]

    return complete


def names_in_storage(*marks: str) -> Complete:
    """Completes the names of folders with one of these files below `--storage`, or a path.

    Only a folder on this disk is looked at: a store would keep the shell waiting.
    """

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        storage = str(ctx.params.get("storage") or os.environ.get(variable("storage")) or "runs")
        root = Path(storage).expanduser()
        found = [] if "://" in storage else [p for mark in marks for p in root.glob(f"*/{mark}")]
        names = ["last", *sorted({path.parent.name for path in found})]
        return beginnings(names, or_file=True)(ctx, param, incomplete)

    return complete


run_names = names_in_storage("config.json")
# By what help calls a value.
COMPLETED: dict[str | None, Complete] = {
    "PLACE": PLACE.shell_complete,
    "FILE": PLACE.shell_complete,
    "RUN": run_names,
}


def on_end_option(command: Callable) -> Callable:
    """Adds `--on-end`, a command; it is no setting, and so never kept with a run."""
    return click.option(
        "--on-end",
        metavar="COMMAND",
        help="Call this with the shell when it has ended, whether it finished or not; "
        "LENET_END_NAME, LENET_END_STATE (finished, stopped or failed) and LENET_END_RESULT tell "
        "it what.",
    )(command)


def config_option(command: Callable) -> Callable:
    """Adds `--config`, a file of settings for a new run or sweep."""
    return click.option(
        "--config",
        "config_file",
        type=PLACE,
        metavar="FILE",
        help="Settings of a new run from a TOML or YAML file, by the options' names, or those of "
        "another run from its config.json. Options and variables go before them.",
    )(command)


def told(
    values: Mapping[str, Any],
    config_file: str | None,
    fields: Mapping[str, dataclasses.Field],
    but: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides what a command was told into options and what is usual here.

    Call it within the command.

    Args:
        values: The options' values by field name, None where nothing was said.
        config_file: As `--config`.
        fields: The settings that the command has.
        but: Settings that are not taken where the file is that of another run.

    Returns:
        What was typed; and what variables and the file say, which hold for what is new.

    Raises:
        InputError: The file is unusable.
    """
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in values.items() if value is not None}
    variables = {k: v for k, v in given.items() if source(k) is ParameterSource.ENVIRONMENT}
    usual = read_settings(config_file, fields, but) if config_file else {}
    typed = {name: value for name, value in given.items() if name not in variables}
    return typed, {**usual, **variables}


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
        # LENET_MODEL is what new runs train.
        envvar=variable("run_model"),
        metavar="FILE.py:FUNCTION",
        help="The file that RUN was trained with, if its model has layers that the file defines.  "
        "[$LENET_RUN_MODEL]",
    )(command)


def data_option(command: Callable) -> Callable:
    """Adds `--data`: where a run's data set is, if not where it was when it was trained."""
    return click.option(
        "--data",
        type=PLACE,
        # LENET_DATA is what new runs are trained on.
        envvar=variable("run_data"),
        metavar="PLACE",
        help="Where the data set is, as for training.  [$LENET_RUN_DATA]",
    )(command)


storage_option = click.option(
    "--storage",
    type=PLACE,
    default="runs",
    envvar=variable("storage"),
    metavar="PLACE",
    help="Where runs are kept: a folder, or s3://BUCKET/PREFIX.  [runs]",
)
