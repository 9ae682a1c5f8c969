"""Runtimes of exported files, one file each, and the table of them. A file is imported before its runtime is needed."""
