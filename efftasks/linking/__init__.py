"""How a value that a config states once reaches every place that needs it; `efftasks/config.py` is the way in."""
