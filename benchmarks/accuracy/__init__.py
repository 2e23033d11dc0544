"""Accuracy on test sets, with several seeds, beside that of other methods and of the notebook."""
