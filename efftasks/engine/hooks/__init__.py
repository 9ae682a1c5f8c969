"""engine/hooks of efftasks."""
