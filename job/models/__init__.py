"""The nets: those that are built in, and the user's own."""

from job.models.builtin import IMAGE_SHAPE, MODELS, build_model

__all__ = ["IMAGE_SHAPE", "MODELS", "build_model"]
