"""models/layers of efftasks."""
