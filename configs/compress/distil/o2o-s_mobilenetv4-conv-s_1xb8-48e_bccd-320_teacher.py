# The teacher of o2o-n on blood cells (BCCD): size s, trained alone.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

scale = dict(phi=4, gamma=1.0)
