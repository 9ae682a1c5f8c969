"""Which prediction learns from which object."""
