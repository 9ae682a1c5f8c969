"""runtime of efftasks."""
