"""Exporters, one file each, and the table of them. A file is imported before what it exports with is needed."""
