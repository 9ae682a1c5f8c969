"""Data sets, and all that is done to data before training: the quick check, conversion, previews, the built-in shapes.

Transforms are in `datasets/transforms`; what a config says about data sets is linked in `linking`.
May import `annotations`, `checkpoints`, `codecs`, `compat`, `imaging`, `ops`, `registry`, `structures`.
"""
