"""Writes the documents' tables, figures and reference, and runs the notebook."""
