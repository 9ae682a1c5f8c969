"""models/det_heads of efftasks."""
