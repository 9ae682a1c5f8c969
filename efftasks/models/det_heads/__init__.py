"""Heads of detectors: NMS-free, points (`o2o`) and queries (D-FINE, DEIM, RT-DETR)."""
