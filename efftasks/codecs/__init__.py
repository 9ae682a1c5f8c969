"""Codecs: encoding of targets and decoding of predictions, in one class, where a task has both.

Decoding without such a pair is in the head.
May import `ops`, `registry`, `structures`.
"""
