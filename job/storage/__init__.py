"""Where things are kept: a folder or an object store, checkpoints in it, and who may write."""
