"""Structured pruning: which channels belong together, which matter least, and the network without them.

`tracing.py` follows the channels of a model through one run, and `groups.py` makes groups of channels that must be kept
or removed together. `importance.py` ranks them, `ratios.py` chooses, `targets.py` searches the ratio that meets a target,
`slicing.py` cuts the layers, `checking.py` proves that a cut removes what it should, and `prune.py` is the step of a config.
"""
