"""The documents, and in `docs.make` what writes the parts of them that are made."""
