# DEIMv2-Pico on your own data: quantized after training, for ONNX Runtime and OpenVINO. See README.md.
_base_ = "../../det/deimv2/deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune.py"

compression = dict(
    steps=[
        dict(name="dense"),
        dict(name="int8", export=[dict(precision="int8"), dict(backend="openvino", precision="int8")]),
    ],
    benchmark=dict(threads=1),
)
