# o2o-n on BCCD, trained towards channels that can be pruned: those that matter little shrink to zero; see README.md.
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320.py"

default_hooks = dict(sparsity=dict(type="GroupSparsity", strength=1e-4))
