"""Transforms of one sample: loading, fitting, augmenting, packing. For a batch: `models/batch_augments.py`."""
