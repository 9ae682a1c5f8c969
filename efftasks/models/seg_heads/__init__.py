"""Heads that give a class for each pixel."""
