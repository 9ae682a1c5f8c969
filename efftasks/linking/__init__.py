"""Linking: values that a config states once are filled in where they are needed. Use it through `efftasks/config.py`.

Values are filled in and checked here; nothing is built.
May import `compat`, `datasets`, `imaging`, `registry`, `structures`.
"""
