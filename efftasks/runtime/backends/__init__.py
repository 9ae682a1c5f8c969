"""Runtimes: each loads its files and runs a batch. A file a runtime."""
