"""Pure functions on tensors: boxes, masks, keypoints, sampling, top-k. The exported graph runs the same code.

No modules with parameters: those are in `models/layers`.
May import nothing of efftasks.
"""
