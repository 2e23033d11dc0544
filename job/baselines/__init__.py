"""Classical methods beside the nets: nearest neighbours and support vector machines.

Each is trained, chosen and tested on the split of the nets (docs/studies/baselines.md).
"""
