"""Published checkpoints by name: their catalog, fetching, and the cache. No PyTorch; `apis/zoo.py` converts and exports.

May import `structures`.
"""
