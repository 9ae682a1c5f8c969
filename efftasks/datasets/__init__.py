"""datasets of efftasks."""
