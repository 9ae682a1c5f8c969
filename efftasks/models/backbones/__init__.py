"""Backbones: images -> feature maps, declared as `FeatureSpec`. A file for each paper, with its source and license."""
