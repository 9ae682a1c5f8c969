"""export of efftasks."""
