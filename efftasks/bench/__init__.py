"""bench of efftasks."""
