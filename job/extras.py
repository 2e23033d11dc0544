"""Packages that only some commands need: pyproject.toml's extras."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from job.errors import InputError

# The modules of each; tests hold them against pyproject.toml.
EXTRAS = {
    "report": ("altair", "vl_convert"),
    "baselines": ("sklearn", "threadpoolctl"),
    "optuna": ("optuna",),
    "trackers": ("mlflow", "sqlalchemy", "alembic", "wandb", "trackio"),
    "export": ("tf2onnx", "onnx", "onnxruntime"),
}


def check_installed(
    extra: str, field: str, value: str | None = None, modules: Sequence[str] | None = None
) -> None:
    """Raises InputError, which says how to get it, where a part of an extra is not installed.

    Args:
        extra: A key of `EXTRAS`.
        field: The command or option that needs it.
        value: That of the option.
        modules: Those that are needed; all by default.
    """
    for module in EXTRAS[extra] if modules is None else modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(
                field,
                value,
                f"needs {module}, which is not installed; in the project's folder "
                f'make venv EXTRAS={extra}, or pip install ".[{extra}]"',
            )
