"""A trace of some steps by TensorFlow's profiler: what the device did, and for how long.

https://www.tensorflow.org/guide/profiler
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from job.runs.run import Run

PROFILE = "profile"


class Profile:
    """Traces a run's first steps but for its first span, in which functions are compiled.

    Every worker cuts its spans alike; the first one traces.

    Args:
        run: The run, of which one that has a trace gets no other.
        is_active: Trace anything at all.
    """

    def __init__(self, run: Run, *, is_active: bool) -> None:
        self._run, self._is_active = run, is_active
        self._left = run.config.profile or 0
        if self._left and PROFILE in run.storage.list():
            self._left = 0
        self._is_first = True
        self._scratch: tempfile.TemporaryDirectory | None = None

    @property
    def _traces(self) -> bool:
        return self._left > 0 and not self._is_first

    def limit(self, steps: int) -> int:
        """How many of these steps the next span may have, so that the trace ends in time."""
        return min(steps, self._left) if self._traces else steps

    @contextlib.contextmanager
    def span(self, steps: int) -> Iterator[None]:
        """Traces the block, which trains so many steps, if it is to be."""
        if self._traces and self._is_active and self._scratch is None:
            self._start()
        try:
            yield
        except BaseException:
            self.close()
            raise
        if self._traces:
            self._left -= steps
            if not self._left and self._scratch is not None:
                self._keep()
        self._is_first = False

    def close(self) -> None:
        """Ends a trace that is under way; nothing of it is kept."""
        if self._scratch is not None:
            import tensorflow as tf

            tf.profiler.experimental.stop(save=False)
            self._scratch.cleanup()
            self._scratch = None

    def _start(self) -> None:
        import tensorflow as tf

        self._scratch = tempfile.TemporaryDirectory(prefix="lenet-profile-")
        tf.profiler.experimental.start(self._scratch.name)

    def _keep(self) -> None:
        import tensorflow as tf

        assert self._scratch is not None  # who calls this has started
        tf.profiler.experimental.stop()
        folder = Path(self._scratch.name)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                where = path.relative_to(folder)
                self._run.storage.write(f"{PROFILE}/{where}", path.read_bytes())
        self._scratch.cleanup()
        self._scratch = None
