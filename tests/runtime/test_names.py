from efftasks.runtime.names import short_names


def test_names_are_as_short_as_they_can_be_told_apart():
    assert short_names(["out/a.onnx", "b.onnx"]) == {"out/a.onnx": "a.onnx", "b.onnx": "b.onnx"}
    same = ["x/small/model.onnx", "y/large/model.onnx"]
    assert list(short_names(same).values()) == ["small/model.onnx", "large/model.onnx"]
    assert short_names(["a.onnx", "a.onnx"]) == {"a.onnx": "a.onnx"} and short_names([]) == {}
