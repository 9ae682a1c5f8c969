"""Checkpoints of other projects: the names and shapes of their tensors, and the names in this package."""
