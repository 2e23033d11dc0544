"""What a sweep searches.

A space is a mapping from settings of a run to what they may be, as in this TOML:

    [batch_size]
    values = [32, 64, 128]

    [optimizer]
    values = ["momentum", "adam"]

    [[learning_rate]]              # two brackets: one of several, by `when`
    when = { optimizer = "momentum" }
    low = 0.01
    high = 0.2
    log = true
    with_batch = "linear"          # low and high hold at batch 128 and grow with it

    [[learning_rate]]
    when = { optimizer = ["adam", "rmsprop"] }
    low = 3e-4
    high = 1e-2
    log = true

It is checked against `TrainConfig`, so that no trial can fail by a setting that does not exist.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from job.config.config import FIELDS, is_fixed
from job.config.fields import lenient
from job.config.files import read_document
from job.config.resolve import over_recipe
from job.errors import InputError, nearest
from tuning.config import REPLACED

# A learning rate found at one batch size, carried to another: linearly for plain and momentum SGD
# (Goyal et al. 2017), by the square root for optimizers that divide by the gradient's size
# (Malladi et al. 2022).
POWERS = {"linear": 1.0, "sqrt": 0.5}
REFERENCE_BATCH = 128
DEFAULT_POINTS = 3
# A range of more whole numbers than this has no end of them.
MOST_WHOLE = 1000

KEYS = ("values", "low", "high", "log", "points", "with_batch", "when")
# A sweep sets these itself, or they are the same for all of its trials: `deterministic` can't be
# taken back in a process, which trains one trial after another.
NOT_SEARCHED = ("seed", "dataset", "limit_train", "validation", "deterministic", *REPLACED)

DEFAULT: dict[str, Any] = {
    "batch_size": {"values": [16, 32, 64, 128, 256, 512]},
    "optimizer": {"values": ["sgd", "momentum", "rmsprop", "adam", "muon"]},
    "learning_rate": [
        {
            "when": {"optimizer": "sgd"},
            "low": 0.03,
            "high": 1.0,
            "log": True,
            "with_batch": "linear",
        },
        {
            "when": {"optimizer": "momentum"},
            "low": 0.01,
            "high": 0.3,
            "log": True,
            "with_batch": "linear",
        },
        {
            "when": {"optimizer": "rmsprop"},
            "low": 1e-4,
            "high": 3e-3,
            "log": True,
            "with_batch": "sqrt",
        },
        {
            "when": {"optimizer": "adam"},
            "low": 3e-4,
            "high": 1e-2,
            "log": True,
            "with_batch": "sqrt",
        },
        {
            "when": {"optimizer": "muon"},
            "low": 5e-4,
            "high": 1e-2,
            "log": True,
            "with_batch": "sqrt",
        },
    ],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRange:
    """One way in which a setting is chosen: from `values`, or between `low` and `high`.

    Attributes:
        field: The setting.
        values: What it may be.
        low, high: Its range, ends included.
        log: Even in the logarithm.
        points: How many values of the range a grid takes.
        with_batch: How the value grows with the batch size, beyond 128: `linear` or `sqrt`.
        when: It is chosen in this way where these settings have one of these values.
    """

    field: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    points: int = DEFAULT_POINTS
    with_batch: str | None = None
    when: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells it from other ways to choose the same setting."""
        conditions = (f"{k}={'|'.join(map(str, v))}" for k, v in self.when.items())
        return f"{self.field} [{', '.join(conditions)}]" if self.when else self.field

    @property
    def is_integer(self) -> bool:
        """Whether it is a range of whole numbers; `values` are no range."""
        return not self.values and isinstance(self.low, int)

    @property
    def needs(self) -> set[str]:
        """The settings that must be chosen before it."""
        return set(self.when) | ({"batch_size"} if self.with_batch else set())

    def at(self, unit: float) -> Any:
        """The value at a place in [0, 1)."""
        if self.values:
            return self.values[int(unit * len(self.values))]
        if self.log:
            value = math.exp(_between(math.log(self.low), math.log(self.high), unit))
        else:
            value = _between(self.low, self.high, unit)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_integer else value

    def place(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`, evenly in its scale."""
        warp = math.log if self.log else float
        low, high = warp(self.low), warp(self.high)
        return (warp(value) - low) / (high - low)

    def grid(self) -> list[Any]:
        """The values that a grid takes."""
        if self.values:
            return list(self.values)
        if self.points == 1:
            return [self.at(0.5)]
        values = [self.at(i / (self.points - 1)) for i in range(self.points)]
        return list(dict.fromkeys(values))

    def enumerated(self) -> SearchRange:
        """A range of not too many whole numbers as these; all others as they are."""
        if not self.is_integer or self.high - self.low > MOST_WHOLE:
            return self
        return dataclasses.replace(self, values=tuple(range(int(self.low), int(self.high) + 1)))

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Whether `when` holds for these settings, which must have all that it names."""
        return all(settings[name] in values for name, values in self.when.items())

    def scaled(self, drawn: Any, batch_size: int) -> Any:
        """The setting's value for what was drawn."""
        if self.with_batch is None:
            return drawn
        # Six digits are more than a learning rate needs, and can be read.
        return float(f"{drawn * (batch_size / REFERENCE_BATCH) ** POWERS[self.with_batch]:.6g}")

    def to_document(self) -> dict[str, Any]:
        """It as a space's file has it."""
        if self.values:
            found: dict[str, Any] = {"values": list(self.values)}
        else:
            found = {key: getattr(self, key) for key in ("low", "high", "log", "points")}
        if self.with_batch:
            found["with_batch"] = self.with_batch
        if self.when:
            found["when"] = {name: list(values) for name, values in self.when.items()}
        return found


# What was drawn, by `SearchRange.key`, and the settings that follow from it.
Point = tuple[dict[str, Any], dict[str, Any]]


def identity(settings: Mapping[str, Any]) -> str:
    """What two trials with the same settings have in common."""
    return json.dumps(settings, sort_keys=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """Parameters, each after those that it depends on."""

    parameters: tuple[SearchRange, ...]

    def choose(self, draw: Callable[[SearchRange], Any], base: Mapping[str, Any]) -> Point:
        """Draws one point: a value for each parameter that applies.

        Args:
            draw: Gives a parameter's value.
            base: The settings that are common to all points.
        """
        drawn: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for parameter in self.parameters:
            if self._applies(parameter, settings, base):
                drawn[parameter.key] = draw(parameter)
                _set(settings, parameter, drawn[parameter.key], base)
        return drawn, settings

    def grid(self, base: Mapping[str, Any]) -> Iterator[Point]:
        """All points of the grid, the last parameters changing fastest."""

        def below(rest: tuple[SearchRange, ...], drawn: dict, settings: dict) -> Iterator[Point]:
            if not rest:
                yield drawn, settings
                return
            first, *others = rest
            if not self._applies(first, settings, base):
                yield from below(tuple(others), drawn, settings)
                return
            for value in first.grid():
                further = dict(settings)
                _set(further, first, value, base)
                yield from below(tuple(others), {**drawn, first.key: value}, further)

        yield from below(self.parameters, {}, {})

    def size(self, base: Mapping[str, Any]) -> int | None:
        """How many different settings there are; None where a range has no end of values."""
        whole = Space(parameters=tuple(p.enumerated() for p in self.parameters))
        if not all(p.values for p in whole.parameters):
            return None
        return len({identity(settings) for _, settings in whole.grid(base)})

    @property
    def fields(self) -> set[str]:
        """The settings that it searches."""
        return {parameter.field for parameter in self.parameters}

    def without(self, given: Mapping[str, Any]) -> Space:
        """The space without the settings that are given: those hold for all trials."""
        return Space(parameters=tuple(p for p in self.parameters if p.field not in given))

    def to_document(self) -> dict[str, Any]:
        """The space as its file has it; `parse_space` reads it."""
        ways: dict[str, list] = {}
        for parameter in self.parameters:
            ways.setdefault(parameter.field, []).append(parameter.to_document())
        return {field: found if len(found) > 1 else found[0] for field, found in ways.items()}

    def _applies(
        self, parameter: SearchRange, settings: Mapping[str, Any], base: Mapping[str, Any]
    ) -> bool:
        if parameter.field in settings:
            return False
        return not parameter.when or parameter.applies(over_recipe({**base, **settings}).to_dict())


def _set(settings: dict, parameter: SearchRange, drawn: Any, base: Mapping[str, Any]) -> None:
    batch_size = over_recipe({**base, **settings}).batch_size if parameter.with_batch else 0
    settings[parameter.field] = parameter.scaled(drawn, batch_size)


def to_yaml(space: Space) -> bytes:
    """A space as a file that `read_space` reads."""
    written = yaml.safe_dump(space.to_document(), sort_keys=False, allow_unicode=True)
    return written.encode()


def read_space(path: str) -> Space:
    """Reads a space from a TOML or YAML file.

    Raises:
        InputError: The file can't be read, or something in it is no setting or no value of it.
    """
    document = read_document("--space", path, (".toml", ".yaml", ".yml"))
    return parse_space(document, path)


def parse_space(document: Any, origin: str, *, is_kept: bool = False) -> Space:
    """Checks a space.

    Args:
        document: As `Space.to_document` gives it.
        origin: Where it comes from, for messages.
        is_kept: It is that of a sweep that was begun, perhaps when other limits held.

    Raises:
        InputError: As `read_space`.
    """
    if not isinstance(document, Mapping) or not document:
        raise InputError("--space", origin, "names no setting to search")
    parameters = []
    for field, ways in document.items():
        several = isinstance(ways, list)
        for way in ways if several else [ways]:
            try:
                parameters.append(_parameter(field, way, is_kept))
            except ValueError as problem:
                raise InputError("--space", origin, f"{field}: {problem}") from None
        if not ways:
            raise InputError("--space", origin, f"{field}: is empty")
    try:
        return Space(parameters=tuple(_ordered(parameters)))
    except ValueError as problem:
        raise InputError("--space", origin, str(problem)) from None


def _parameter(field: Any, way: Any, is_kept: bool) -> SearchRange:
    parse = _parser(field, is_kept)
    if not isinstance(way, Mapping):
        raise ValueError("give `values`, or `low` and `high`")
    for key in way:
        if key not in KEYS:
            raise ValueError(f"{key} is no key of a space{nearest(str(key), KEYS)}")
    when = {
        name: tuple(map(_parser(name, is_kept), values if isinstance(values, list) else [values]))
        for name, values in _table(way.get("when", {})).items()
    }
    if "values" in way:
        if way.keys() - {"values", "when", "with_batch"}:
            raise ValueError("has `values` and a range; leave one out")
        if not isinstance(way["values"], list) or not way["values"]:
            raise ValueError("`values` must be a list of at least one")
        values = tuple(_named(value, parse) for value in way["values"])
        if not is_kept:
            # 64 and "64" are one. What was begun with both goes on with both.
            values = tuple(dict.fromkeys(values))
        return SearchRange(
            field=field, values=values, with_batch=_with_batch(way, values), when=when
        )
    if "low" not in way or "high" not in way:
        raise ValueError("give `values`, or `low` and `high`")
    low, high = _named(way["low"], parse), _named(way["high"], parse)
    if not all(type(end) in (int, float) for end in (low, high)):
        raise ValueError("has no range; give `values`")
    if low >= high:
        raise ValueError(f"`low` {low:g} must be below `high` {high:g}")
    log = way.get("log", False)
    if not isinstance(log, bool):
        raise ValueError("`log` must be true or false")
    if log and low <= 0:
        raise ValueError(f"`low` {low:g} must be above 0 where `log` is true")
    points = way.get("points", DEFAULT_POINTS)
    if type(points) is not int or not 1 <= points <= 1000:
        raise ValueError("`points` must be a whole number between 1 and 1000")
    return SearchRange(
        field=field,
        low=low,
        high=high,
        log=log,
        points=points,
        with_batch=_with_batch(way, (low, high)),
        when=when,
    )


def _with_batch(way: Mapping[str, Any], ends: tuple[Any, ...]) -> str | None:
    name = way.get("with_batch")
    if name is None:
        return None
    if name not in POWERS:
        raise ValueError(f"`with_batch` {name!r}: choose one of {', '.join(POWERS)}")
    if not all(isinstance(end, float) for end in ends):
        raise ValueError("`with_batch` is for settings that are not whole numbers")
    return name


def _parser(field: Any, is_kept: bool) -> Callable[[Any], Any]:
    if field not in FIELDS:
        raise ValueError(f"{field} is no setting of a run{nearest(str(field), FIELDS)}")
    if field in NOT_SEARCHED or not is_fixed(field):
        raise ValueError(f"{field} can't be searched: a sweep sets it for all trials")
    parse = FIELDS[field].metadata["parse"]
    return lenient(parse) if is_kept else parse


def _named(value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except ValueError as problem:
        raise ValueError(f"{value!r}: {problem}") from None


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError('`when` must name settings and values, such as {optimizer = "adam"}')
    return value


def _ordered(parameters: list[SearchRange]) -> Iterator[SearchRange]:
    """Each parameter after those that it depends on. Raises ValueError where that can't be."""
    left = list(parameters)
    while left:
        waiting = {p.field for p in left}
        free = [p for p in left if not (p.needs & waiting)]
        if not free:
            raise ValueError(f"{' and '.join(sorted(waiting))} depend on each other")
        yield from free
        left = [p for p in left if p not in free]


def _between(low: float, high: float, unit: float) -> float:
    return low + (high - low) * unit
