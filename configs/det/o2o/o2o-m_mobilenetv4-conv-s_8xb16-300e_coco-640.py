# COCO at 640 px, size m: size n, deeper and wider by one coefficient; the input keeps its size.
_base_ = ["./o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640.py"]

scale = dict(phi=6, gamma=1.0)
