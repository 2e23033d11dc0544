"""The errors a user can meet, each with the exit code of the command it ends."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Letters of a value in an error: a path has fewer.
LONGEST_SHOWN = 400


class JobError(Exception):
    """Something went wrong while the job ran: one clear message, exit code 1."""

    exit_code = 1


class InputError(JobError):
    """The user gave something unusable: one line that names it and the fix, exit code 2."""

    exit_code = 2

    def __init__(self, field: str, value: object, problem: str) -> None:
        self.field, self.value, self.problem = field, value, problem
        shown = "" if value is None else f" {_shortened(str(value))!r}"
        super().__init__(f"{field}{shown}: {problem}")


class NoGpuError(JobError):
    """A GPU is expected to compute and TensorFlow finds none; `reason` says what it is up to."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; or compute on processors with --device cpu")


class TrainingDivergedError(JobError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class DisplacedError(JobError):
    """The run left a machine that is being taken away, and can go on elsewhere."""


class StopRequestedError(JobError):
    """A signal ended the run after a checkpoint was written (exit code 128 + signal)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def _shortened(value: str) -> str:
    """A value with no more of it than tells which is meant."""
    return value if len(value) <= LONGEST_SHOWN else f"{value[: LONGEST_SHOWN // 2]}…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` for the closest known word, or an empty string."""
    close = closest(word, known)
    return f"; did you mean {close!r}?" if close else ""


def closest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that is most like another, if one is so much like it (1 is the same)."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)
