"""Prediction of keypoints: parts of detection heads, and whole heads."""
