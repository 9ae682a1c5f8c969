"""datasets/transforms of efftasks."""
