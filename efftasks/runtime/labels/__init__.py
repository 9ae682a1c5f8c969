"""Predictions as pre-labels: files that labeling tools open, written image by image.

May import `structures` and `imaging`.
"""
