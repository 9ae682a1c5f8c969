# Street scenes (CamVid), FPNLite-N: quantized after training, for ONNX Runtime and OpenVINO. See README.md.
_base_ = "../../semseg/fpnlite/fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(name="int8", export=[dict(precision="int8"), dict(backend="openvino", precision="int8")]),
    ],
    benchmark=dict(threads=1),
)
