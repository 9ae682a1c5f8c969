"""structures of efftasks."""
