"""Imported by processes for trials as they start, while the sweep itself still imports Ray Tune."""

from job.runtime import import_tensorflow

import_tensorflow()

import job.engine  # noqa: E402
import job.loop  # noqa: E402
import job.results  # noqa: E402, F401
import tuning.trial  # noqa: E402, F401
