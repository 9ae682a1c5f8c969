"""models/losses of efftasks."""
