"""Prediction of instance masks: parts of detection heads, and whole heads."""
