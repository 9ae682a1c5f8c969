"""Files of weights: reading them safely, fitting them to a model, writing them whole or not at all.

No published checkpoints of other projects: their layouts are in `models/published`.
May import `structures`.
"""
