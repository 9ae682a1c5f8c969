"""Checkpoints of other projects: which names and shapes theirs have, and what they are called here."""
