"""models/published of efftasks."""
