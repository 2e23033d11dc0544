"""Settings as dataclasses whose fields carry their help text and their parser.

So a value is checked in the same way whether it came from the command line, from a file or from
Python, an error always names the field, and no option is written down twice.

Limits hold for what is given: `check_given` refuses values beyond them. Settings that were kept are
read without: what an earlier version began stays readable when a limit moves.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from job.errors import InputError, nearest

Parser = Callable[[Any], Any]

# Pixels that a side of an image may have: every model can take it, and many of them fit.
SIDES = (20, 128)
SCHEMES = ("s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "hdfs", "http", "https", "file")


@dataclasses.dataclass(frozen=True)
class Limited:
    """A parser with limits.

    Attributes:
        read: Takes any value of the kind.
        parse: Refuses values beyond the limits, too.
        names: What is accepted, where that is one of a few names.
        other: What is accepted beside the names, as help calls it.
    """

    read: Parser
    parse: Parser
    names: tuple[str, ...] = ()
    other: str | None = None

    @property
    def choices(self) -> str:
        """What it may be, as help shows it; empty where that is no matter of names."""
        return f"[{'|'.join(filter(None, (*self.names, self.other)))}]" if self.names else ""

    def __call__(self, value: Any) -> Any:
        """As `parse`, so that it serves wherever a parser does."""
        return self.parse(value)


def lenient(parser: Parser) -> Parser:
    """A parser without its limits."""
    return parser.read if isinstance(parser, Limited) else parser


def choice(*names: str, also: Mapping[str, str] | None = None) -> Limited:
    """Accepts one of these names; for another the error suggests the nearest.

    Args:
        names: The names.
        also: Other words for some of them.
    """

    def parse(value: Any) -> str:
        if isinstance(value, str):
            value = (also or {}).get(value, value)
        if value not in names:
            raise ValueError(f"choose one of {', '.join(names)}{nearest(str(value), names)}")
        return value

    return Limited(parse, parse, names)


def several(*names: str) -> Parser:
    """Accepts some of these names, with commas between; gives a tuple of them, in their order."""
    check = choice(*names)

    def parse(value: Any) -> tuple[str, ...]:
        given = (
            [check(name.strip()) for name in value.split(",")] if isinstance(value, str) else value
        )
        return tuple(name for name in names if name in given)

    return parse


def names(*known: str) -> Parser:
    """Accepts some of these names, with commas between, and `none`; gives them in their order."""
    check = several(*known)

    def parse(value: Any) -> str | None:
        if value is None or value == "none":
            return None
        if not isinstance(value, str):
            raise ValueError("give names with commas between")
        return ",".join(check(value))

    return parse


def integer(minimum: int, maximum: int = 2**31 - 1) -> Limited:
    """Accepts whole numbers from `minimum` to `maximum`, also as text, but no bool."""

    def read(value: Any) -> int:
        try:
            # int(2.5) would silently round; int("2.5") and int(True) must be refused too.
            number = int(value) if isinstance(value, str) else value
            if isinstance(number, bool) or number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError("not a whole number") from None
        return int(number)

    def parse(value: Any) -> int:
        number = read(value)
        if not minimum <= number <= maximum:
            raise ValueError(f"must be between {minimum} and {maximum}")
        return number

    return Limited(read, parse)


def picture_size(minimum: int, maximum: int) -> Limited:
    """Accepts the size of pictures: `N` for N × N, or `HxW`, height and width.

    A square is its number, so that the same size is the same setting.
    """
    side = integer(minimum, maximum)

    def by(side: Parser) -> Parser:
        def parse(value: Any) -> int | str:
            if not isinstance(value, str) or "x" not in value.lower():
                return side(value)
            height, width = map(side, value.lower().split("x", 1))
            return height if height == width else f"{height}x{width}"

        return parse

    return Limited(by(side.read), by(side.parse))


def height_width(size: int | str | None) -> tuple[int, int] | None:
    """What `picture_size` accepted, as two numbers."""
    if size is None:
        return None
    height, _, width = str(size).partition("x")
    return int(height), int(width or height)


def number(
    *, above: float | None = None, minimum: float | None = None, maximum: float, why: str = ""
) -> Limited:
    """Accepts a finite number; `why` says what is behind the maximum."""

    def read(value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise TypeError
            result = float(value)
        except (TypeError, ValueError):
            raise ValueError("not a number") from None
        if not math.isfinite(result):
            raise ValueError("must be finite")
        return result

    def parse(value: Any) -> float:
        result = read(value)
        if above is not None and result <= above:
            raise ValueError(f"must be greater than {above:g}")
        if minimum is not None and result < minimum:
            raise ValueError(f"must be at least {minimum:g}")
        if result > maximum:
            raise ValueError(f"must be at most {maximum:g}" + (f": {why}" if why else ""))
        return result

    return Limited(read, parse)


def switch(value: Any) -> bool:
    """Accepts true and false, also as words."""
    word = str(value).lower()
    if not isinstance(value, bool | str) or word not in ("true", "false"):
        raise ValueError("must be true or false")
    return word == "true"


def text(value: Any) -> str:
    """Accepts text that is not blank, and leaves it as it is."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must not be empty")
    return value


def place(value: Any) -> str:
    """Accepts the name of a folder or a file, with `~` for the home folder, or a URI."""
    written = text(value)
    scheme, colon, rest = written.partition(":")
    if colon and scheme.lower() in SCHEMES and not rest.startswith("//"):
        # A URI that went through a library for paths; it would become a folder of that name.
        raise ValueError(f"did you mean {scheme}://{rest.lstrip('/')}?")
    # Shells leave it alone behind a `=` and in quotes.
    found = os.path.expanduser(written)
    if found.startswith("~"):
        # A folder of that name is ./~NAME.
        raise ValueError("there is no such home folder here; give the whole path")
    return found


def checked_place(name: str, value: str) -> str:
    """What `place` makes of the value of an option or argument. Raises InputError, naming it."""
    try:
        return place(value)
    except ValueError as problem:
        raise InputError(name, value, str(problem)) from None


def run_name(value: Any) -> str:
    """Accepts what can name a folder: 1 to 100 letters, digits, '.', '_' or '-', without '..'."""
    name = str(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or ".." in name:
        raise ValueError(
            "use 1 to 100 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit and without '..'"
        )
    return name


def digest(value: Any) -> str:
    """Accepts a SHA-256 as 64 hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-f]{64}", str(value)):
        raise ValueError("must be a SHA-256")
    return value


def glob(value: Any) -> str:
    """Accepts a pattern of the shell for paths of arrays, such as `CONV*` or `*/kernel`."""
    if not re.fullmatch(r"[\w./*?\[\]!-]+", str(value)):
        raise ValueError("give a pattern such as 'CONV*' or '*/kernel'")
    return str(value)


def interval(value: Any) -> str:
    """Accepts a number of steps (`500`) or of seconds (`30s`)."""
    match = re.fullmatch(r"(\d{1,9})|(\d{1,9}(?:\.\d{1,9})?)s", str(value))
    if not match or float(match[1] or match[2]) <= 0:
        raise ValueError("give a number of steps such as 500 or of seconds such as 30s, above 0")
    return str(value)


def parse_duration(value: Any) -> float | None:
    """Accepts seconds (`90s`), minutes (`30m`) or hours (`1.5h`); gives seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", str(value))
    if not match or float(match[1]) <= 0:
        raise ValueError("give a time such as 90s, 30m or 1.5h, above 0")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def worker_range(value: Any) -> str:
    """Accepts a number (`4`) or a range (`2:8`)."""
    match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", str(value))
    if not match or not 1 <= int(match[1]) <= int(match[2] or match[1]):
        raise ValueError("give a number of 1 or more, or a range such as 2:8")
    return str(value)


def optional(parser: Parser) -> Limited:
    """Accepts None beside what the parser takes, whose limits stay."""

    def or_none(parse: Parser) -> Parser:
        return lambda value: None if value is None else parse(value)

    names = parser.names if isinstance(parser, Limited) else ()
    other = parser.other if isinstance(parser, Limited) else None
    return Limited(or_none(lenient(parser)), or_none(parser), names, other)


def option(
    default: Any,
    parse: Parser,
    help: str,
    *,
    group: str = "",
    metavar: str | None = "N",
    fixed: bool = True,
    hidden: bool = False,
) -> Any:
    """A config field; one without `metavar` is a switch: `--name` or `--no-name`.

    Help shows it among those of its `group`, and what it may be where that is one of a few names.
    `fixed` fields decide the result and can't change when a run continues; `hidden` ones follow
    from what the user gives and are no options.
    """
    if isinstance(parse, Limited) and parse.names:
        metavar = parse.choices
    return dataclasses.field(
        default=default,
        metadata={
            **{"parse": parse, "help": help, "metavar": metavar, "group": group},
            **{"fixed": fixed, "hidden": hidden},
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A base for dataclasses whose fields are made by `option`. Limits are not checked.

    Raises:
        InputError: A field's value is none of its kind; the message names field, value and fix.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            parsed = _parsed(field.name, value, lenient(field.metadata["parse"]))
            object.__setattr__(self, field.name, parsed)

    def to_dict(self) -> dict[str, Any]:
        """The value of every field, by name."""
        return dataclasses.asdict(self)

    def fixed_dict(self) -> dict[str, Any]:
        """The settings that decide the result, without where it is read from or written to."""
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if f.metadata["fixed"]}


def fields_of(settings: type[Settings]) -> dict[str, dataclasses.Field]:
    """The options of a class of settings, by name."""
    return {field.name: field for field in dataclasses.fields(settings)}


def flag(field: str) -> str:
    """The command-line spelling of a field."""
    return "--" + field.replace("_", "-")


def typed(field: str, value: Any) -> tuple[str, ...]:
    """The words that give a field a value on the command line."""
    if isinstance(value, bool):
        return (flag(field if value else f"no_{field}"),)
    return flag(field), str(value)


def check_given(given: Mapping[str, Any], *known: Mapping[str, dataclasses.Field]) -> None:
    """Raises InputError for keys that none of `known` has, and values unusable or beyond limits."""
    fields = {name: field for some in known for name, field in some.items()}
    for name, value in given.items():
        if name not in fields:
            raise InputError(flag(name), None, f"no such setting{nearest(name, fields)}")
        _parsed(name, value, fields[name].metadata["parse"])


def checked_value(name: str, value: Any, field: dataclasses.Field) -> Any:
    """What a field makes of a value. Raises InputError, which calls it so, for an unusable one."""
    try:
        return field.metadata["parse"](value)
    except ValueError as problem:
        raise InputError(name, value, str(problem)) from None


def _parsed(name: str, value: Any, parse: Parser) -> Any:
    try:
        return parse(value)
    except ValueError as problem:
        raise InputError(flag(name), value, str(problem)) from None


def check_unchanged(
    what: str, stored: Mapping[str, Any], wanted: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raises InputError where a setting given decides the result, and `what` began with another.

    Args:
        what: A run or a sweep, in words.
        stored: What it was begun with.
        wanted: Settings that decide the result, parsed.
        given: What the user gave.
    """
    for name, value in wanted.items():
        begun = stored.get(name)
        if name in given and value != begun:
            is_switch = isinstance(value, bool)
            was = typed(name, begun)[0] if isinstance(begun, bool) else repr(begun)
            raise InputError(
                typed(name, value)[0],
                None if is_switch else value,
                f"{what} was started with {was}; leave the flag out to "
                "continue it, take another --name, or --overwrite it",
            )
