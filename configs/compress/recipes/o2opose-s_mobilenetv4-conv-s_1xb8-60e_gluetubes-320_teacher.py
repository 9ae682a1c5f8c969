# The teacher of o2opose-n on glue tubes: size s, trained alone.
_base_ = "../../pose/o2opose/o2opose-n_mobilenetv4-conv-s_1xb8-60e_gluetubes-320.py"

scale = dict(phi=4, gamma=1.0)
