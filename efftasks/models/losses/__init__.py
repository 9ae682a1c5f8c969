"""Losses and their terms; their targets are assigned in `assigners`."""
