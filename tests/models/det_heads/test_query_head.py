"""The query detectors as wholes: training, decoding, truncation, fusing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from efftasks.compression.folding import inference_model
from efftasks.registry import MODELS
from efftasks.structures.instances import PaddedTargets

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ("dfine", "deimv2", "deimv2_lite", "rtdetrv2")


def build(family: str, **head: Any) -> Any:
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "models" / f"{family}.py").model
    options = Config(dict(model=cfg))
    changes = {"num_classes": 4, "selection.num_queries": 30}
    for key, value in head.items():
        part = {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
        changes.update(part)
    options.merge_from_dict({f"model.head.{key}": value for key, value in changes.items()})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        model = MODELS.build(options.model)
    with torch.no_grad():  # the heads of boxes begin at zero, which would hide mistakes
        for name, parameter in model.head.named_parameters():
            if name.endswith("weight") and not bool(parameter.any()):
                parameter.normal_(std=0.05)
    return model


def objects(count: int, crowd: bool = False) -> PaddedTargets:
    boxes = torch.tensor([[10.0, 20, 60, 80], [30, 30, 90, 120], [5, 70, 40, 100]])[:count]
    valid = torch.ones(2, count, dtype=torch.bool)
    ignored = torch.zeros(2, count, dtype=torch.bool)
    if crowd:
        ignored[:, -1] = True
    labels = torch.tensor([[0, 3, 1], [2, 2, 1]])[:, :count]
    return PaddedTargets(labels, boxes.expand(2, count, 4), valid, ignored)


def losses(model: Any, targets: PaddedTargets) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    images = torch.rand(2, 3, 128, 128)
    return model.head.loss(model.neck(model.backbone(images)), targets)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [3, 0])
def test_every_parameter_learns_with_and_without_objects(family: str, count: int) -> None:
    # Processes whose batches have no objects must have gradients for the same parameters, or training hangs.
    model = build(family).train()
    actual = losses(model, objects(count))
    torch.stack(list(actual.values())).sum().backward()
    assert all(bool(torch.isfinite(value)) for value in actual.values())
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_losses_have_the_same_names_with_and_without_objects() -> None:
    model = build("dfine").train()
    assert set(losses(model, objects(3))) == set(losses(model, objects(0)))


def test_crowds_are_left_out() -> None:
    model = build("rtdetrv2", denoising=None).train()
    with_crowd, without = losses(model, objects(3, crowd=True)), losses(model, objects(2))
    for name, value in without.items():
        torch.testing.assert_close(with_crowd[name], value)


def normed(model: Any) -> Any:
    """With the statistics of one batch: without them, the maps of random weights have values in the thousands."""
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        model.train().neck(model.backbone(torch.rand(4, 3, 128, 128)))
    return model.eval()


def rows(raw: Any) -> list[torch.Tensor]:
    """Queries (Q, 4 + C) of every image from left to right: two of nearly the same score may swap their places."""
    both = torch.cat([raw.boxes, raw.logits], dim=-1)
    return [image[image[:, 0].argsort()] for image in both]


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_equals_trained(family: str) -> None:
    model = normed(build(family))
    fused: Any = inference_model(model)
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        expected, actual = model(images, mode="tensor"), fused(images, mode="tensor")
    for a, b in zip(rows(actual), rows(expected), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert fused.head.denoising is None
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", ["dfine", "rtdetrv2"])
def test_fewer_layers_answer_as_the_layer_did_in_training(family: str) -> None:
    whole = build(family, decoder=dict(num_layers=3)).eval()
    short = build(family, decoder=dict(num_layers=3, eval_layers=2)).eval()
    short.load_state_dict(whole.state_dict())
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        maps = [p(x) for p, x in zip(whole.head.input_proj, whole.neck(whole.backbone(images)))]
        selected = whole.head.selection(maps)
        whole.head.decoder.train()  # then it gives every layer's output
        layers = whole.head.decoder(selected.content, selected.box_logits, maps).layers
        actual = short(images, mode="tensor")
    torch.testing.assert_close(actual.logits, layers[1].logits)
    torch.testing.assert_close(actual.boxes, layers[1].boxes)
    assert len(inference_model(short).head.decoder.layers) == 2  # type: ignore[union-attr, arg-type]
    with pytest.raises(ValueError, match="eval_layers: got 4, allowed 1 to 3"):
        build(family, decoder=dict(num_layers=3, eval_layers=4))


def test_detections_are_pairs_of_query_and_class() -> None:
    model = build("deimv2_lite").eval()
    with torch.no_grad():
        detections = model.infer(torch.rand(1, 3, 128, 128))
    assert detections.boxes.shape == (1, 30 * 4, 4)  # fewer pairs than the 300 at most
    assert model.head.count_detections(128, 128) == 120
    assert bool((detections.scores[:, :-1] >= detections.scores[:, 1:]).all())
    assert float(detections.boxes.max()) > 1.5, "boxes are in pixels of the network input"


def test_late_matching_begins_when_told() -> None:
    model = build("deimv2")
    model.set_progress(0.9)
    assert model.head.criterion.matcher.progress == 0.9
