# Glue tubes, o2opose-n: quantized after training, for ONNX Runtime and OpenVINO. See README.md.
_base_ = "../../pose/o2opose/o2opose-n_mobilenetv4-conv-s_1xb8-60e_gluetubes-320.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(name="int8", export=[dict(precision="int8"), dict(backend="openvino", precision="int8")]),
    ],
    benchmark=dict(threads=1),
)
