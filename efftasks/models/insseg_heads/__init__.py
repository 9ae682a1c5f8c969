"""models/insseg_heads of efftasks."""
