"""A line of `lenet doctor`'s, and how the lines of one check come together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sized
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line.

    Attributes:
        check: What was looked at.
        status: `ok`, `warn` or `fail`.
        text: What was found.
        fix: What to do about it; empty where it is ok.
        machine: The one that is meant; None for all of them, or none in particular.
        figures: What was measured.
    """

    check: str
    status: str
    text: str
    fix: str = ""
    machine: str | None = None
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_failure(self) -> bool:
        """Whether its status is `fail`; `warn` is no failure."""
        return self.status == FAIL

    def __str__(self) -> str:
        where = f"{self.machine}: " if self.machine else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.status:5} {self.check:12} {where}{self.text}{fix}"


class CheckReport:
    """Collects what one check says.

    Args:
        check: Its name.
        machines: Those that answered; where there is none, nothing can be called ok.
    """

    def __init__(self, check: str, machines: Sized) -> None:
        self._check, self._count = check, len(machines)
        self._findings: list[Finding] = []

    def warn(self, machine: str | None, text: str, fix: str, **figures: Any) -> None:
        """Adds a `warn` line about a machine, with what to do about it and what was measured."""
        self._problem(WARN, machine, text, fix, figures)

    def fail(self, machine: str | None, text: str, fix: str, **figures: Any) -> None:
        """Adds a `fail` line about a machine, with what to do about it and what was measured."""
        self._problem(FAIL, machine, text, fix, figures)

    def or_ok(self, text: str, **figures: Any) -> list[Finding]:
        """The problems; where there are none, one line that says so."""
        if not self._findings and self._count:
            among = f"{self._count} nodes: " if self._count > 1 else ""
            ok = Finding(check=self._check, status=OK, text=among + text, figures=figures)
            return [ok]
        return self._findings

    def _problem(
        self, status: str, machine: str | None, text: str, fix: str, figures: dict[str, Any]
    ) -> None:
        self._findings.append(
            Finding(
                check=self._check,
                status=status,
                text=text,
                fix=fix,
                machine=machine,
                figures=figures,
            )
        )
