# FPNLite on CamVid in four widths at once, one of which is chosen when it is tested or exported; see README.md.
_base_ = "../../semseg/fpnlite/fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480.py"

model_transforms = [dict(type="Slimmable", widths=(1.0, 0.75, 0.5, 0.25))]
