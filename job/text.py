"""Numbers and errors as people read them."""

from __future__ import annotations


def percent(value: float | None) -> str:
    """A share as `99.16%`; empty for None."""
    return "" if value is None else f"{value:.2%}"


def counted(number: int, word: str) -> str:
    """A number with its noun: `1 run`, `1,000 runs`."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def one_line(error: BaseException) -> str:
    """An error's type, and the first line of its message that is not blank."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason'}"


def duration(seconds: float) -> str:
    """Seconds as `2:03`, from an hour on as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
