"""models/backbones of efftasks."""
