"""Training with fake quantization: parts of a model become graphs of torchao's PT2E flow, which export as integers.

`quantize_aware.py` is the step of compression, `capture.py` makes the graph of a part, `quantizer.py` chooses what gets
integers in it, `part.py` is the module in the place of the part, `convert.py` prepares a trained model for export.
torchao is imported only where a graph is made.
"""
