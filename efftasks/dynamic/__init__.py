"""Networks that are several at once: widths that share their weights, trained together.

A step of a config (`model_transforms`) makes the network that is trained. What is tested, exported and run is one of
the networks in it, a plain model.
May import `compression`, `models`, `ops`, `registry`, `structures`.
"""
