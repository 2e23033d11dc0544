"""What a run leaves: figures, card, predictions, exported models."""
