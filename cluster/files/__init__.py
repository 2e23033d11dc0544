"""Cluster files, checked before anything is started or paid for."""
