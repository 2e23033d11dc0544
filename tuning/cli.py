"""The `lenet` command: a table of its commands, each loaded when it is called.

Nothing here imports TensorFlow or Ray before it is needed: help and errors come at once.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence

import click
from click.core import ParameterSource
from click.shell_completion import BashComplete, add_completion_class

from job.config.config import FIELDS
from job.config.flags import VARIABLES, variable
from job.errors import InputError, JobError, StopRequestedError, closest, nearest
from job.reasons import reason_of

log = logging.getLogger(__name__)

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# A command stands in the lowest package that knows all it needs.
COMMANDS = {
    "train": "cluster.commands:train",
    "evaluate": "job.commands.evaluate:evaluate",
    "predict": "job.commands.predict:predict",
    "data": "job.commands.data:data",
    "runs": "job.commands.runs:runs",
    "doctor": "cluster.commands:doctor",
    "models": "job.commands.models:models",
    "export": "job.commands.export:export",
    "baselines": "cluster.commands:baselines",
    "compare": "job.commands.compare:compare",
    "completion": "tuning.commands:completion",
    "sweep": "tuning.commands:sweep",
    "report": "tuning.commands:report",
}
# What removes something has to be typed each time.
TYPED_ONLY = ("overwrite", "clean", "delete", "yes", "pin", "unpin")


class _Bash(BashComplete):
    """Joins what bash divides: it hands over `--name=value` in three words."""

    name = "bash"

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], incomplete


add_completion_class(_Bash)


class Commands(click.Group):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command's module only now; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        for param in command.params:
            if isinstance(param, click.Option) and param.name not in TYPED_ONLY:
                param.envvar = param.envvar or variable(param.opts[0])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As of the base class. Raises UsageError, with the nearest name, for an unknown one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS) or "; `lenet --help` lists them"
            raise click.UsageError(f"No such command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(package_name="lenet-on-ray")
def cli() -> None:
    """Train LeNet5, AlexNet and a feed-forward net on small images, alone or on a Ray cluster.

    Start with `lenet train`: it gets the data, trains, evaluates and says where things are.

    Every option but those that remove something has a variable: LENET_BATCH_SIZE is --batch-size.
    Exit codes: 0 done, 1 failed, 2 bad input, 128 + N ended by signal N.
    """
    for name, meant in misspelt(os.environ).items():
        log.warning("%s: no option has this variable; did you mean %s?", name, meant)


def misspelt(environment: Iterable[str]) -> dict[str, str]:
    """The variables that are nearly one of an option, and which one."""
    there = {name for name in environment if name.startswith(VARIABLES)}
    # What is told to what --on-end calls, perhaps `lenet`.
    there = {name for name in there if not name.startswith(f"{VARIABLES}END_")}
    if there <= set(map(variable, FIELDS)):
        # Without the modules of all commands.
        return {}
    context = click.Context(cli)
    commands = [cli.get_command(context, name) for name in COMMANDS]
    options = [param for command in commands if command for param in command.params]
    known = {str(one.envvar).removeprefix(VARIABLES) for one in options if one.envvar}
    words = {name: name.removeprefix(VARIABLES) for name in sorted(there)}
    # Others may have variables that begin so: only what is surely meant is named.
    near = {name: closest(word, known, 0.8) for name, word in words.items() if word not in known}
    return {name: f"{VARIABLES}{word}" for name, word in near.items() if word}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 bad input, 128 + n ended by signal n."""
    sys.exit(run_command(arguments))


class _StderrHandler(logging.Handler):
    """Prints messages to stderr as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    # It prints to whatever stands for stderr then: what libraries write there may be held back.
    logging.basicConfig(level=logging.WARNING, handlers=[_StderrHandler()])
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        cli.main(given, prog_name="lenet", standalone_mode=False)
        # What can't be printed is an error here, not a word of Python's at its end.
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as help_text:
        print(help_text.format_message())
        return 0
    except click.ClickException as error:
        words = f"{error.format_message()} {_variable_of(error)}".split()
        print(f"error: {' '.join(words)}", file=sys.stderr)
        return 2
    except StopRequestedError as stopped:
        print(stopped, file=sys.stderr)
        return stopped.exit_code
    except JobError as error:
        print(f"error: {reason_of(_by_variable(error, given))}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error, given)
    return 0


def _variable_of(error: click.ClickException) -> str:
    """The variable that gave a value which an option does not take, in words; else nothing."""
    context, param = error.ctx if isinstance(error, click.UsageError) else None, None
    if isinstance(error, click.BadParameter):
        param = error.param
    if context is None or param is None or param.name is None:
        return ""
    is_from_variable = context.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT
    return f"(from the variable {param.envvar})" if is_from_variable else ""


def _by_variable(error: JobError, given: Sequence[str]) -> JobError:
    """The error, of which a variable is named where that gave the value, and not an option."""
    if not isinstance(error, InputError) or not error.field.startswith("--"):
        return error
    name, words = variable(error.field), (error.field, error.field.replace("--", "--no-", 1))
    said = os.environ.get(name)
    if not said or any(word.partition("=")[0] in words for word in given):
        return error
    # Others came from the settings of a run, which the variable did not change.
    # Or below it: of a storage, the folder of the run is named.
    begins = tuple(f"{place}/" for place in (said, os.path.abspath(said)))
    is_its = error.value is None or f"{error.value}/".startswith(begins)
    return InputError(name, error.value, error.problem) if is_its else error


def _failed(error: Exception, given: Sequence[str]) -> int:
    """Says why the machine, the network or a library ended a command; returns the exit code.

    Raises the error where it is a defect of this program.
    """
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return 1
    reason = reason_of(error)
    if reason is None:
        raise error
    if "--verbose" in given:
        traceback.print_exception(error)
    command = next((word for word in given if word in COMMANDS), "")
    print(f"error: {f'lenet {command}'.strip()}: {reason}", file=sys.stderr)
    return 1


def _nobody_reads() -> bool:
    """Whether who was to read stdout has gone, `head` say: that is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    main()
