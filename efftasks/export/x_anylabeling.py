"""A detector as a custom model of X-AnyLabeling, the labeling tool: an ONNX file of its type ``yolov10``, and its YAML.

From its documentation (docs/en/custom_model.md) and issues alone: its code is under the GPL and was not read. Of the
types it has, ``yolov10`` is that of networks without NMS. Files of that type (Ultralytics' export of YOLOv10, arXiv
2405.14458) take one image (1, 3, H, W) of fixed size, RGB from 0 to 1, and give (1, K, 6): x1, y1, x2, y2 in pixels of
the network input, score, and class.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec

__all__ = ["TYPE", "check_x_anylabeling", "write_x_anylabeling"]

TYPE = "yolov10"
_STEM = "x_anylabeling"
_PREFIX = "efftasks/"
_OBJECTS = ("boxes", "scores", "labels")
_CONFIDENCE = 0.3  # of the YAML, which may be edited
_TOLERANCE = 1e-3  # pixels; the normalization is computed in another order


def check_x_anylabeling(spec: ArtifactSpec) -> None:
    """Raise UserError unless an artifact is an ONNX file that gives boxes of float32 images."""
    names = {output.name for output in spec.outputs}
    fields = (
        ("backend", spec.backend, "onnx"),
        ("decode", spec.decode, "inside"),
        ("input", spec.input.dtype, "float32"),
        ("early_exit", None if spec.early_exit is None else spec.early_exit.form, None),
    )
    for field, value, expected in fields:
        if value != expected:
            raise UserError(f"--x-anylabeling: {field}: got {value}, expected {expected or 'none'}")
    if not names >= set(_OBJECTS):
        raise UserError(f"--x-anylabeling: got a model that gives {', '.join(sorted(names))}, expected a detector")


def write_x_anylabeling(path: Path, spec: ArtifactSpec) -> Path:
    """Write ``x_anylabeling.onnx`` and ``x_anylabeling.yaml`` beside an exported ONNX file.

    Masks and keypoints are left out. The file is run on random pixels and has to give what the artifact gives.

    Args:
        path: of the artifact.
        spec: its description.

    Returns:
        The path of the YAML file, which X-AnyLabeling loads by "Load Custom Model".

    Raises:
        UserError: the artifact is of another kind.
        WorkError: the file does not give the same.
    """
    check_x_anylabeling(spec)
    model = _wrapped(onnx.load(str(path)), spec)
    target = path.with_name(f"{_STEM}.onnx")
    onnx.save(model, str(target))
    _verify(path, target, spec)
    config = target.with_suffix(".yaml")
    config.write_text(_yaml(target.name, spec), encoding="utf-8")
    return config


def _wrapped(model: onnx.ModelProto, spec: ArtifactSpec) -> onnx.ModelProto:
    """The graph between a normalization and the concatenation of its outputs."""
    model = onnx.compose.add_prefix(model, _PREFIX)
    graph, image_input = model.graph, spec.input
    inputs, count = f"{_PREFIX}{image_input.name}", next(o.shape[1] for o in spec.outputs if o.name == "scores")
    boxes, scores, labels = (f"{_PREFIX}{name}" for name in _OBJECTS)
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1) / 255 for values in (image_input.mean, image_input.std)
    )
    constants = {
        "order": np.array([0, 1, 2] if image_input.color == "RGB" else [2, 1, 0]),
        "mean": mean,
        "std": std,
        "last": np.array([-1]),
    }
    before = [
        helper.make_node("Gather", ["images", "order"], ["ordered"], axis=1),
        helper.make_node("Sub", ["ordered", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], [inputs]),
    ]
    after = [
        helper.make_node("Cast", [labels], ["classes"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [scores, "last"], ["score_column"]),
        helper.make_node("Unsqueeze", ["classes", "last"], ["class_column"]),
        helper.make_node("Concat", [boxes, "score_column", "class_column"], ["output0"], axis=-1),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    size = [1, 3, image_input.height, image_input.width]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, size))
    graph.output.append(helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, count, 6]))
    del model.metadata_props[:]  # the description of another file
    onnx.checker.check_model(model)
    return model


def _verify(path: Path, target: Path, spec: ArtifactSpec) -> None:
    """Run both files on random pixels, RGB."""
    import onnxruntime

    image_input = spec.input
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, image_input.height, image_input.width)).astype(np.float32)
    order = [0, 1, 2] if image_input.color == "RGB" else [2, 1, 0]
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (image_input.mean, image_input.std))
    providers = ["CPUExecutionProvider"]
    original = onnxruntime.InferenceSession(str(path), providers=providers)
    wrapped = onnxruntime.InferenceSession(str(target), providers=providers)
    boxes, scores, labels = original.run(list(_OBJECTS), {image_input.name: (pixels[:, order] - mean) / std})
    expected = np.concatenate([boxes, scores[..., None], labels[..., None]], -1)
    (result,) = wrapped.run(None, {"images": pixels / 255})
    if result.shape != expected.shape or not np.allclose(result, expected, atol=_TOLERANCE):
        raise WorkError(f"{target}: does not give what {path} gives")


def _yaml(file: str, spec: ArtifactSpec) -> str:
    """The fields of the documentation; names are in quotes, since numbers alone must be texts."""
    name = Path(spec.source.get("config", file)).stem
    lines = [
        f"type: {TYPE}",
        f"name: {json.dumps(name)}",
        "provider: efftasks",
        f"display_name: {json.dumps(name)}",
        f"model_path: {json.dumps(file)}",
        f"input_width: {spec.input.width}",
        f"input_height: {spec.input.height}",
        f"conf_threshold: {_CONFIDENCE}",
        "classes:",
        *(f"  - {json.dumps(name)}" for name in spec.classes),
    ]
    return "\n".join(lines) + "\n"
