"""Exporters: a PyTorch model and its description -> a file of one format. A file an exporter."""
