"""An ONNX network in float32 -> the same in float16, but for what overflows or loses too much there."""
