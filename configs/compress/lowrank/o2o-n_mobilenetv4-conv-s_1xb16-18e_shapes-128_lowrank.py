# Low-rank 1x1 convolutions in the deepest stage and the neck, with half of their weights; see README.md.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128.py"

model_transforms = [dict(type="LowRank", layers=["backbone.stages.3.*", "neck.*"], ratio=0.5)]
