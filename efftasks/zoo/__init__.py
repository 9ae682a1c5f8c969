"""Published checkpoints by name: their catalog, fetching, and the cache.

No PyTorch: `apis/zoo.py` converts and exports, in a process of its own where the caller has none.
May import `structures`.
"""
