"""Experiment trackers: Weights & Biases, MLflow, ClearML, and the guard that lets training go on when one fails."""
