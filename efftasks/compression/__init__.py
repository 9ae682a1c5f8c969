"""Changing a built network: low rank now; pruning, quantization and the rest go here, a file or folder each.

A step is a `ModelTransform`: it decides a plan, plain data, from a model, and applies a plan to a model. `building.py`
is the one place where models of configs are built and their steps applied, for the runner and `apis`; `plan.py` is
what checkpoints keep of it. Works on any `nn.Module`: which layers a network has, it learns from names and shapes.
Losses, data and schedules are not here. It never imports `models`.
May import `ops`, `registry`, `structures`.
"""
