# COCO at 640 px, size l: size n with scaled depth and width; the input size is the same.
_base_ = ["./o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640.py"]

scale = dict(phi=8, gamma=1.0)
