"""models/assigners of efftasks."""
