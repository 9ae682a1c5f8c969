"""Transforms of one sample: loading, fitting, augmenting, packing. Those of a batch are in `models/batch_augments.py`."""
