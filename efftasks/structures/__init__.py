"""Types, and nothing else: what flows between the parts of the package, and the protocols they follow.

Standard library and numpy. What works on these types is elsewhere.
May import nothing of efftasks.
"""
