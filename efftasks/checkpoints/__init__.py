"""Files of weights: reading them safely, fitting them to a model, writing them whole or not at all.

May import `structures`.
"""
