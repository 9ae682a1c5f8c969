"""evaluation of efftasks."""
