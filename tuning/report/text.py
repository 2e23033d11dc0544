"""Numbers as people read them. Spaces inside are narrow and do not break."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from job.text import duration
from tuning.report.charts.parameters import plain

NONE = "–"
THIN = "\u202f"


def percent(value: float | None) -> str:
    """A share, 0 to 1, as percent with two decimals; a dash for None."""
    return NONE if value is None else share(value, 2)


def share(value: float, digits: int = 0) -> str:
    """A share, 0 to 1, as percent with that many decimals."""
    return f"{value * 100:.{digits}f}{THIN}%"


def chance(value: float) -> str:
    """A probability as percent with one decimal; `< 0.1 %` for those below."""
    return share(value, 1) if value >= 0.001 else f"< {share(0.001, 1)}"


def percent_pair(pair: tuple[float, float | None] | None) -> str:
    """Mean and, of several, standard deviation."""
    if pair is None:
        return NONE
    mean, deviation = pair
    return percent(mean) if deviation is None else f"{mean * 100:.2f} ± {percent(deviation)}"


def loss(value: float | None) -> str:
    """A loss with four decimals; a dash for None."""
    return NONE if value is None else f"{value:.4f}"


def seconds(value: float | None) -> str:
    """Seconds as `M:SS`, from an hour on as `H:MM:SS`; a dash for None."""
    return NONE if value is None else duration(value)


def amount(value: float | None, currency: str = "") -> str:
    """Hours, or money of a currency; small amounts with more digits, a dash for None."""
    if value is None:
        return NONE
    shown = f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.4f}"
    return unit(shown, currency)


def unit(shown: str, name: str) -> str:
    """What is shown with the name of its unit behind it, if it has one."""
    return f"{shown}{THIN}{name}" if name else shown


def when(value: float | None) -> str:
    """Seconds since the epoch as date and time, to the minute, in UTC; a dash for None."""
    if value is None:
        return NONE
    moment = datetime.datetime.fromtimestamp(value, datetime.UTC)
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def setting(value: Any) -> str:
    """A setting as `plain` writes it; a dash for None."""
    return NONE if value is None else plain(value)


def words(name: str) -> str:
    """A field's name as words."""
    return name.replace("_", " ")


def flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A document as lines of name and value, whatever it holds."""
    lines = []
    for name, value in document.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            lines += flat(value, f"{path} › ")
        elif isinstance(value, list | tuple) and value and not _is_plain_list(value):
            numbered = {str(i): each for i, each in enumerate(value, start=1)}
            lines += flat(numbered, f"{path} › ")
        elif isinstance(value, list | tuple):
            lines.append((path, ", ".join(map(plain, value))))
        else:
            lines.append((path, plain(value)))
    return lines


def _is_plain_list(values: Any) -> bool:
    return not any(isinstance(value, Mapping | list | tuple) for value in values)
