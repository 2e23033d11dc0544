"""What a report is made for, whatever it shows: when, where, and at what price."""

from __future__ import annotations

import dataclasses
import re

from job.config.fields import number
from job.errors import InputError

SECONDS_PER_HOUR = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
    """What an hour of one trial costs.

    Attributes:
        amount: Of an hour.
        currency: Its three letters; empty where none was named.
    """

    amount: float
    currency: str = ""

    def of(self, seconds: float | None) -> float | None:
        """The price of some time; None where that is not known."""
        return None if seconds is None else seconds / SECONDS_PER_HOUR * self.amount


def price_of(value: str | float | None) -> Price | None:
    """The price that was given: a number, and perhaps three letters of a currency behind it.

    Raises:
        InputError: It is none.
    """
    if value is None:
        return None
    given = str(value).strip()
    letters = re.search(r"[A-Za-z]{3}$", given)
    currency = letters[0].upper() if letters else ""
    try:
        amount = number(minimum=0, maximum=1e9)(given[: len(given) - len(currency)])
    except ValueError as problem:
        raise InputError(
            "--price-per-hour", value, f"{problem}; give a price such as 2.50 or 2.50EUR"
        ) from None
    return Price(amount=amount, currency=currency)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What a page is made for.

    Attributes:
        written: When, seconds since the epoch.
        price: Of an hour of one trial, where that is known.
        place: The folder of the files beside it with a `/`, as a command names it; empty for none.
        version: Tells it from later pages for whoever follows it; empty for a page in a file.
    """

    written: float
    price: Price | None = None
    place: str = ""
    version: str = ""
