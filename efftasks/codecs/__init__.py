"""How targets are encoded for a head and its output is decoded, in one class, where a task has such a pair.

Decoding that is the head's own stays in the head.
May import `ops`, `registry`, `structures`.
"""
