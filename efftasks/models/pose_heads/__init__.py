"""models/pose_heads of efftasks."""
