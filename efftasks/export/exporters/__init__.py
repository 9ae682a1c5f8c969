"""export/exporters of efftasks."""
