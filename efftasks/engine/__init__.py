"""engine of efftasks."""
