"""codecs of efftasks."""
