"""Classical methods beside the nets: nearest neighbours and support vector machines, each trained,
chosen and tested on the split of the nets (docs/baselines.md)."""
