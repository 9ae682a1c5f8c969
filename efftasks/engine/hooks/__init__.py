"""Hooks of training: seeds, progress, averages, precision, what is written down. A file a hook."""
