"""Annotation files as people have them, read entry by entry; for data sets, metrics and checks alike.

Standard library and numpy only. May import `structures`.
"""
