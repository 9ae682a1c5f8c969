"""Reports of evaluations as one HTML page: figures, tables and pictures from records, without the model and PyTorch.

`page.py` has the parts that every page is made of.
May import `annotations`, `evaluation`, `imaging`, `structures`.
"""
