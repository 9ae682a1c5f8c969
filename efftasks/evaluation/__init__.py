"""Metrics: pure functions on predictions and targets, each with a shell that collects them.

Running a model over a data set is `apis/evaluating.py`.
May import `annotations`, `imaging`, `ops`, `registry`, `structures`.
"""
