"""How a value that a config states once reaches every place that needs it; `efftasks/config.py` is the way in.

It fills in values and checks them; it builds nothing.
May import `compat`, `datasets`, `imaging`, `registry`, `structures`.
"""
