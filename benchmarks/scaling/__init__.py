"""Steps of N workers, measured on simulated hosts and carried to more by a model."""
