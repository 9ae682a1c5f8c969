"""models/necks of efftasks."""
