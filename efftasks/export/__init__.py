"""From a PyTorch model to a file, and the comparison of what both predict.

Exporters are in `export/exporters`. The order of export, verification and shipping is `apis/exporting.py`; running
files is `runtime`.
May import `imaging`, `ops`, `registry`, `structures`.
"""
