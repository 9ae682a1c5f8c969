# o2o-n on your own data, exported in 8-bit integers; train it with this config, or with the one below it.
#   efftasks export o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640_int8 best.pth --precision int8 --out out --eval
_base_ = "../../det/o2o/o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640.py"

quantization = dict(method="auto", images=256, subset=128, weight_bits=7, float_layers=[])
