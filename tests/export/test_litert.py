"""LiteRT's own files: what they hold, and that they give what the model gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor, apis
from efftasks.apis.forms import exported_spec
from efftasks.export.exporters.litert import EXPORTER, export_litert, prepare_litert, write_graph
from efftasks.export.quantization.recipe import CalibrationImages, Recipe
from efftasks.runtime.backends.litert import BACKEND
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec, QuantizationSpec

SPEC = ArtifactSpec(
    task="detection",
    classes=("a",),
    category_ids=(1,),
    input=InputSpec("images", 8, 12, (0, 0, 0), (255, 255, 255), layout="NHWC", dynamic_batch=False, divisor=1),
    outputs=(OutputSpec("scores", ("N", 2, 4, 6), "float32", ""),),
)


class Small(nn.Module):
    """Convolutions of all kinds that have integers; the last one gives an output, and stays in float."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.twins = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(2))
        self.twins[1].load_state_dict(self.twins[0].state_dict())
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.down = nn.Conv2d(8, 4, 2, stride=2)
        self.last = nn.Conv2d(4, 2, 1)

    def infer(self, images: Tensor) -> tuple[Tensor]:
        maps = self.depthwise(self.stem(images).relu()).relu()
        for twin in self.twins:
            maps = maps + twin(maps).relu()
        return (self.last(self.down(self.up(maps).relu())),)


def needs_the_converter() -> None:
    for module in EXPORTER.modules:
        pytest.importorskip(module, reason="the extra litert-export is not installed")


def calibration() -> CalibrationImages:
    images = np.random.default_rng(0).random((4, 1, 8, 12, 3), dtype=np.float32) * 0.9
    return CalibrationImages([str(i) for i in range(4)], lambda i: images[i], (0.0, 1.0))


def detector() -> Any:
    """A detector with masks, keypoints and a label map as after some training: scores spread."""
    torch.manual_seed(0)
    narrow = {"model.backbone.width": 0.25, "model.neck.out_channels": (16, 16, 16)}
    cfg = apis.load_config("o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128", {**narrow, "image_size": 96})
    model = apis.build(cfg)
    head: Any = model.head
    for scores, sides in zip(head.one_to_one.classes, head.one_to_one.boxes):
        nn.init.normal_(scores[-1].weight, 0.0, 0.5)
        nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one batch gives the statistics
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 96, 96))
    model.cfg, model.dataset_meta = (
        cfg,
        dict(
            classes=tuple(cfg.classes), category_ids=tuple(range(len(cfg.classes))), keypoints=cfg.keypoints.to_dict()
        ),
    )
    return model.eval()


@pytest.mark.slow
def test_it_gives_what_the_model_gives(tmp_path):
    needs_the_converter()
    model = detector()
    spec = exported_spec(model, apis.describe(model), EXPORTER)
    spec = replace(spec, input=replace(spec.input, dynamic_batch=False))
    path = export_litert(apis.fuse(model), spec, tmp_path / "model.tflite")
    spec.save(path.with_suffix(".json"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.tflite"]
    weights = sum(4 * p.numel() for p in apis.fuse(model).parameters() if p.ndim == 4)
    assert weights < path.stat().st_size < 1.5 * weights + 2e5

    predictor = Predictor(path, threads=1)
    images = torch.rand(1, 3, 96, 96)
    outputs = predictor.session.run(np.ascontiguousarray(images.permute(0, 2, 3, 1)))
    with torch.no_grad():
        expected = dict(zip([output.name for output in spec.outputs], model.infer(images), strict=True))
    for output in spec.outputs:
        assert outputs[output.name].dtype == output.dtype and output.dtype != "int64"
        limit = 2e-4 * max(1.0, float(expected[output.name].abs().max()))
        np.testing.assert_allclose(outputs[output.name], expected[output.name].numpy(), rtol=0, atol=limit)
    (found,) = predictor(np.zeros((50, 70, 3), np.uint8))
    assert found.labels.dtype == np.int64 and len(found) == model.head.count_detections(96, 96)


def test_integers_by_the_same_rule_as_onnx(tmp_path):
    needs_the_converter()
    model = Small().eval()
    quantizer = prepare_litert(model, SPEC, tmp_path, calibration(), ("up",), opset=18)
    assert quantizer.names == ("stem", "depthwise", "twins.0", "twins.1", "down")
    path = tmp_path / "model.tflite"
    assert quantizer.write(path, Recipe("minmax")) == ("up", "last")
    assert quantizer.write(tmp_path / "b.tflite", Recipe("minmax", float_layers=("twins",))) == (
        *("up", "last"),
        *("twins.0", "twins.1"),
    )
    types = weight_types(path)
    assert sorted(types) == ["float32", "float32", *["int8"] * 5]
    assert sorted(weight_types(tmp_path / "b.tflite")) == [*["float32"] * 4, *["int8"] * 3]

    images = torch.rand(1, 3, 8, 12)
    session = BACKEND.open(path)
    assert (session.inputs, session.outputs) == (("images",), ("scores",))
    with torch.no_grad():
        (expected,) = model.infer(images)
    (result,) = session.run(np.ascontiguousarray(images.permute(0, 2, 3, 1))).values()
    assert result.dtype == np.float32
    assert 0 < np.abs(result - expected.numpy()).max() < 0.05 * float(expected.abs().max())


def test_ranges_of_the_largest_or_of_the_mean_and_bytes_of_the_image(tmp_path):
    needs_the_converter()
    quantizer = prepare_litert(Small().eval(), SPEC, tmp_path, calibration(), (), opset=18)
    scales = {}
    for method in EXPORTER.quantization.methods if EXPORTER.quantization else ():
        quantizer.write(tmp_path / f"{method}.tflite", Recipe(method))
        scales[method] = activation_scales(tmp_path / f"{method}.tflite")
    images = {method: [s for shape, s in rows if shape == (1, 8, 12, 3)] for method, rows in scales.items()}
    assert all(values == pytest.approx([1 / 255]) for values in images.values())  # not 0.9, the largest there was
    rest = [[s for shape, s in scales[method] if shape != (1, 8, 12, 3)] for method in ("minmax", "mean-minmax")]
    assert len(rest[0]) == len(rest[1]) > 4
    assert all(mean <= largest * 1.001 for largest, mean in zip(*rest)) and rest[0] != pytest.approx(rest[1], rel=1e-3)


def interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain: Any = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    plain.allocate_tensors()
    return plain


def weight_types(path: Path) -> list[str]:
    """Of the weights of convolutions."""
    plain = interpreter(path)
    types = {detail["index"]: detail["dtype"].__name__ for detail in plain.get_tensor_details()}
    return [types[op["inputs"][1]] for op in plain._get_ops_details() if "CONV" in op["op_name"]]


def activation_scales(path: Path) -> list[tuple[tuple[int, ...], float]]:
    """Shapes and scales of the activations in integers, in the order of computation."""
    plain = interpreter(path)
    details = {detail["index"]: detail for detail in plain.get_tensor_details()}
    outputs = [details[index] for op in plain._get_ops_details() for index in op["outputs"]]
    return [(tuple(d["shape"]), d["quantization"][0]) for d in outputs if d["dtype"] is np.int8]


class _FourBest(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.topk(4, dim=-1).values


class _Branches(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("cannot be run at all\nand more")


def test_a_top_k_of_which_only_the_values_are_used(tmp_path):
    needs_the_converter()
    images = torch.rand(1, 3, 8, 9)
    (values,) = BACKEND.open(write_graph(_FourBest(), images, tmp_path / "a.tflite")).run(images.numpy()).values()
    assert np.array_equal(values, images.topk(4, dim=-1).values.numpy())


def test_what_the_converter_says_is_in_the_message(tmp_path, capfd):
    needs_the_converter()
    with pytest.raises(WorkError, match=r"a\.tflite: LiteRT cannot convert the network \(RuntimeError: cannot be run"):
        write_graph(_Branches(), torch.zeros(1, 3, 8, 8), tmp_path / "out" / "a.tflite")
    assert not list((tmp_path / "out").iterdir()) and capfd.readouterr() == ("", "")


def test_what_cannot_be_exported_is_refused(tmp_path):
    for change in (dict(dynamic_batch=True), dict(dynamic_size=True), dict(layout="NCHW")):
        (name,) = change
        with pytest.raises(UserError, match=rf"input\.{name}: got .*, a \.tflite file is written with "):
            export_litert(Small(), replace(SPEC, input=replace(SPEC.input, **change)), tmp_path / "a.tflite")
    with pytest.raises(UserError, match=r"Conv2d has no method infer\(images\)"):
        export_litert(nn.Conv2d(3, 2, 1), SPEC, tmp_path / "a.tflite")
    trained = replace(SPEC, precision="int8", quantization=QuantizationSpec(weights="int8"))
    with pytest.raises(UserError, match="--backend litert: the checkpoint was trained with fake quantization"):
        export_litert(Small(), trained, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())
