"""What happens to a run while it trains: the loop, its writer, progress and signals."""
