"""Structured pruning: which channels belong together, which matter least, and the network without them.

`tracing.py` and `rules.py` follow the channels of a model through a run and note them in a `record.py`; `groups.py`
makes groups of channels that must be kept or removed together. `importance.py` ranks them, `ratios.py` chooses,
`targets.py` searches the ratio that meets a target, `slicing.py` cuts the layers, and `checking.py` tests by running
that a cut removes what it should. `shrinking.py` trains towards channels that can be removed; `prune.py` is the step of
a config.
"""
