"""Backbones: images -> feature maps, declared as `FeatureSpec`. A file a paper, a licence and a source each."""
