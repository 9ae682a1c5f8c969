# o2o-n on BCCD in four widths at once, one of which is chosen when it is tested or exported; see README.md.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

model_transforms = [dict(type="Slimmable", widths=(1.0, 0.75, 0.5, 0.25))]
