"""models of efftasks."""
