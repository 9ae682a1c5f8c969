"""Transforms of one sample: loading, resizing, augmentation, packing. For batches see `models/batch_augments.py`."""
