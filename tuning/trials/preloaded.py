"""Imported by processes for trials as they start, while the sweep itself still imports Ray Tune."""

from job.engine.runtime import import_tensorflow

import_tensorflow()

import tuning.trials.trial  # noqa: E402, F401
