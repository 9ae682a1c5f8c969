# D-FINE-N on COCO, exported in 8-bit integers; its selection and decoder stay in float.
#   efftasks export dfine-n_hgnetv2-b0_8xb16-160e_coco-640_int8 dfine-n.pth --precision int8 --out out --eval
_base_ = "../../det/dfine/dfine-n_hgnetv2-b0_8xb16-160e_coco-640.py"

quantization = dict(method="auto", images=512, subset=256, weight_bits=7, float_layers=[])
