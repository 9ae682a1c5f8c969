"""Necks: the feature maps of a backbone -> those of a head."""
