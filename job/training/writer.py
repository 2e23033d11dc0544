"""What a run keeps while it trains: checkpoints, its history, and how far it got."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

from job.errors import JobError, TrainingDivergedError
from job.runs.run import Reached, Run
from job.runs.state import RunState
from job.storage.background import Job, Uploads
from job.storage.base import StoreError
from job.storage.checkpoints import SupersededError
from job.waiting import waiting

# How far the run got is noted so often where each note is a request that costs money.
NOTE_SECONDS = 1.0


class RunWriter:
    """Keeps what is reached: at once on disk, in the background in an object store.

    Args:
        run: The run.
        reached: Where this attempt began, and what came before.
        is_active: Keep anything at all: all workers hold the same state, the first one keeps it.
    """

    def __init__(self, run: Run, reached: Reached, *, is_active: bool) -> None:
        self._run, self._reached, self._is_active = run, reached, is_active
        self._uploads = Uploads(background=is_active and run.storage.is_remote)
        self._note_after = -math.inf

    def checkpoint(self, state: RunState) -> None:
        """Keeps a state, and at the end of an epoch the history."""
        at_epoch_end = state.current.steps == 0 and state.history
        val_loss = state.history[-1].val_loss if at_epoch_end else None
        self._submit(
            "checkpoint",
            lambda: self._run.checkpoints.save(state.step, state.to_files(), val_loss=val_loss),
        )
        if at_epoch_end:
            self._submit("history", lambda: self._write_history(state))

    def _write_history(self, state: RunState) -> None:
        # It imports TensorFlow, which the command line does without.
        from job.results.artifacts import write_history

        write_history(self._run, state.history)

    def reached(self, state: RunState) -> None:
        """Notes how far the run got, if it is time to."""
        now = time.monotonic()
        if now >= self._note_after:
            self._note_after = now + (NOTE_SECONDS if self._run.storage.is_remote else 0.0)
            here = dataclasses.replace(self._reached, step=state.step)
            self._submit("notes", lambda: self._run.note(here))

    def wait(self) -> None:
        """Returns when everything is kept. Raises what a write failed with."""
        with waiting(f"what was reached to be kept in {self._run.storage.uri}"):
            self._uploads.wait()

    def close(self) -> None:
        """Ends keeping; what still waits is not kept."""
        self._uploads.close()

    def _submit(self, name: str, job: Job) -> None:
        if self._is_active:
            self._uploads.submit(name, job)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Adds to errors of training and of the store what is safe and how to go on."""
        try:
            yield
        except TrainingDivergedError as error:
            try:
                self.wait()
            except (StoreError, SupersededError) as lost:
                raise TrainingDivergedError(f"{error}; {self._last_saved()}; {lost}") from lost
            raise TrainingDivergedError(f"{error}; {self._last_saved()}") from None
        except StoreError as error:
            again = f"when the store is back, continue with: {self._run.command}"
            raise JobError(f"{error}; {self._last_saved()}; {again}") from error
        except SupersededError as error:
            raise JobError(f"{error}; this one ends") from error

    def _last_saved(self) -> str:
        """What is safe, in words; known without asking the store."""
        step = self._run.checkpoints.last_committed
        where = self._run.storage.uri
        if step is None:
            return f"this attempt saved no checkpoint in {where}"
        return f"the last saved checkpoint is step {step:,} in {where}"
