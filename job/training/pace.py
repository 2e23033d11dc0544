"""How long spans of steps are, when a checkpoint is due, and how long nothing may happen."""

from __future__ import annotations

import time

from job.config.config import TrainConfig

# Spans are as long as this, so that the display moves and a signal is answered at once, while
# Python is met a few times a second only. Their length has no influence on the numbers.
SPAN_SECONDS = 0.5
FIRST_SPAN_STEPS = 8
# How long nothing may happen while TensorFlow is imported, while functions are traced and compiled
# and workers find each other; and later, as a multiple of the last span's time.
STARTING_SECONDS = 120.0
PATIENCE_FACTOR = 5


class Pace:
    """Chooses span lengths and the moments of checkpoints."""

    def __init__(self, config: TrainConfig) -> None:
        self._every_steps = config.checkpoint_steps
        self._every_seconds = config.checkpoint_seconds
        self._hang_timeout = config.hang_timeout
        self.span_steps = FIRST_SPAN_STEPS
        self.patience = STARTING_SECONDS
        self.evaluation_patience = STARTING_SECONDS
        self._is_first = True
        self.checkpointed()

    def next_span(self, step: int, left_in_epoch: int) -> int:
        """How many steps may follow, up to the end of the epoch or the next checkpoint."""
        steps = min(self.span_steps, left_in_epoch)
        if self._every_steps:
            steps = min(steps, self._every_steps - step % self._every_steps)
        return steps

    def measured(self, steps: int, seconds: float) -> None:
        """Adapts spans, which at most double, and patience to what the last one took."""
        # The first call includes tracing and compiling.
        if not self._is_first:
            wanted = steps * SPAN_SECONDS / seconds
            self.span_steps = max(1, min(round(wanted), 2 * self.span_steps))
            self.patience = self._patience_after(seconds)
        self._is_first = False

    def evaluated(self, seconds: float) -> None:
        """Adapts the patience with evaluation to the seconds that it took."""
        self.evaluation_patience = self._patience_after(seconds)

    def _patience_after(self, seconds: float) -> float:
        # Large batches on slow machines: a single step may take long without being stuck.
        return max(self._hang_timeout, PATIENCE_FACTOR * seconds)

    def checkpoint_due(self, step: int) -> bool:
        """Whether to take one after this step of the run."""
        if self._every_steps:
            return step % self._every_steps == 0
        assert self._every_seconds is not None  # an interval has steps or seconds
        return time.monotonic() - self._last >= self._every_seconds

    def checkpointed(self) -> None:
        """Counts the seconds to the next checkpoint from now on."""
        self._last = time.monotonic()
