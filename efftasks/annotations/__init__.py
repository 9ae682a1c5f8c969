"""COCO annotation files, read entry by entry; data sets, metrics and checks read them with the same functions.

No images, no data sets. Standard library and numpy only.
May import `structures`.
"""
