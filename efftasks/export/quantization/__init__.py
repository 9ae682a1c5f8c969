"""From an exported float network to one of 8-bit integers. The exporters call it; see ``exporters/base.py``."""
