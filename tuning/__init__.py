"""Hyperparameter search and its report."""
