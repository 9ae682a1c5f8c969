# Blood cells, with four experts in the 1x1 projections of the backbone's stages of stride 16 and 32.
_base_ = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

model_transforms = [
    dict(type="ConditionalConv", layers=["backbone.stages.2.*.pw_proj.conv", "backbone.stages.3.*.pw_proj.conv"])
]
