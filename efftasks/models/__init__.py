"""Networks: composites (`detectors.py`, `segmentors.py`, `pose_estimators.py`) of parts, which are in the folders here.

Parts meet in typed tuples of `structures` and in declared channels and strides. No training loop, no files.
May import `annotations`, `checkpoints`, `codecs`, `compat`, `compression`, `imaging`, `ops`, `registry`, `structures`.
"""
