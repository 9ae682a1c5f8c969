"""What a model costs: parameters, FLOPs, latency, memory; each row of a table with the environment it was measured in.

No accuracy, and no building of PyTorch models: that is `apis/benchmark_models.py`.
May import `reports`, `runtime`, `structures`.
"""
