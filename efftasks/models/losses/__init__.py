"""Losses and their terms; which targets they get is decided in `assigners`."""
