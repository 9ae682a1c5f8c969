"""ops of efftasks."""
