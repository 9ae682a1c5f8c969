"""models/seg_heads of efftasks."""
