"""Changing a built network: low rank, pruning, and further steps, a file or folder each.

A step is a `ModelTransform`: it decides a plan, plain data, from a model, and applies a plan to a model. `building.py`
builds the models of configs and applies their steps, for the runner and `apis`; `plan.py` is the record of the steps in
checkpoints; `folding.py` folds and strips. It works on any `nn.Module`, by the names and shapes of its layers.
Losses, data and schedules are not here. It never imports `models`.
May import `ops`, `registry`, `structures`.
"""
