"""runtime/backends of efftasks."""
