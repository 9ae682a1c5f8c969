"""Checkpoint files: reading them safely, matching them with a model, writing them atomically.

No published checkpoints of other projects: their layouts are in `models/published`.
May import `structures`.
"""
