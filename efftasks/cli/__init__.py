"""cli of efftasks."""
