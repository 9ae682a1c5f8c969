"""Slimmable networks: one set of weights, of which narrower networks use the first channels of every layer."""
