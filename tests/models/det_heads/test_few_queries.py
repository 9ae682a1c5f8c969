"""Query detectors that decode fewer queries where they suffice: the same as with fewer queries from the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from efftasks.registry import MODELS
from efftasks.structures.instances import PaddedTargets
from efftasks.structures.protocols import Branches

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ("deimv2_lite", "dfine_masks")
ALL, FEW = 30, 10


def build(family: str, **selection: Any) -> Any:
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "models" / f"{family}.py").model
    options = Config(dict(model=cfg))
    changes = {"num_queries": ALL, **selection}
    options.merge_from_dict({f"model.head.selection.{key}": value for key, value in changes.items()})
    options.model.head.num_classes = 4
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("efftasks"):
        model = MODELS.build(options.model)
    with torch.no_grad():  # the heads of boxes begin at zero, which would hide mistakes
        for name, parameter in model.head.named_parameters():
            if name.endswith("weight") and not bool(parameter.any()):
                parameter.normal_(std=0.05)
        model.head.selection.score_head.weight.mul_(0.02)  # saturated scores would all be the same
    return model.eval()


def images(seed: int = 1, count: int = 1) -> Tensor:
    return torch.rand(count, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


def raw_of(model: Any, x: Tensor) -> Any:
    with torch.no_grad():
        return model.stages(x).raw


def best_left_out(model: Any, x: Tensor) -> Tensor:
    """The score of the cell after the few best, of each image (B,), by the maps themselves."""
    with torch.no_grad():
        maps = [project(level) for project, level in zip(model.head.input_proj, model.features(x))]
        selected = model.head.selection(maps)
    return selected.logits.amax(-1).sigmoid().sort(dim=1, descending=True).values[:, FEW]


@pytest.mark.parametrize("family", FAMILIES)
def test_few_are_as_from_the_beginning_and_all_as_without(family: str) -> None:
    x = images(count=2)
    few = build(family, few_queries=FEW, few_below=2.0)
    reference = build(family, num_queries=FEW)
    assert few.state_dict().keys() == reference.state_dict().keys()  # checkpoints fit both
    raw, expected = raw_of(few, x), raw_of(reference, x)
    torch.testing.assert_close(raw.logits[:, :FEW], expected.logits)
    torch.testing.assert_close(raw.boxes[:, :FEW], expected.boxes)
    assert raw.logits.shape[1] == ALL and not raw.logits[:, FEW:].sigmoid().any()
    with torch.no_grad():
        detections, expected = few.infer(x), reference.infer(x)
    found = int((detections.scores[0] > 0).sum())
    assert found == expected.scores.shape[1] < detections.scores.shape[1]
    for name in ("boxes", "scores", "labels", "masks"):
        ours, theirs = getattr(detections, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours[:, :found], theirs, atol=1e-3, rtol=1e-3)

    every = build(family, few_queries=FEW, few_below=0.0)
    assert torch.equal(raw_of(every, x).logits, raw_of(build(family), x).logits)


def test_the_score_of_the_first_that_is_left_out_decides() -> None:
    model = build(FAMILIES[0], few_queries=FEW)
    x = images()
    limit = float(best_left_out(model, x))
    for few_below, decoded in ((limit * 1.0001, FEW), (limit * 0.9999, ALL)):
        model.head.selection.few_below = few_below
        assert int((raw_of(model, x).logits.amax(-1) > -100).sum()) == decoded


def test_a_batch_decides_together() -> None:
    model = build(FAMILIES[0], few_queries=FEW)
    easy, hard = sorted((images(seed) for seed in (1, 2)), key=lambda x: float(best_left_out(model, x)))
    limits = [float(best_left_out(model, x)) for x in (easy, hard)]
    model.head.selection.few_below = sum(limits) / 2
    assert limits[0] < limits[1]
    decoded = [int((raw_of(model, x).logits[0].amax(-1) > -100).sum()) for x in (easy, hard, torch.cat([easy, hard]))]
    assert decoded == [FEW, ALL, ALL]


def test_training_always_decodes_all() -> None:
    losses = []
    targets = PaddedTargets(
        torch.zeros(2, 1, dtype=torch.long),
        torch.tensor([[[10.0, 20, 60, 80]]]).expand(2, 1, 4),
        torch.ones(2, 1, dtype=torch.bool),
        torch.zeros(2, 1, dtype=torch.bool),
    )
    for selection in ({}, dict(few_queries=FEW, few_below=2.0)):
        model = build(FAMILIES[0], **selection).train()
        torch.manual_seed(1)
        losses.append(sum(model.head.loss(model.features(images(count=2)), targets).values()))
    assert torch.equal(losses[0], losses[1])


def test_ways_can_be_forced() -> None:
    model, x = build(FAMILIES[0], few_queries=FEW), images()
    head = model.head
    assert isinstance(head, Branches) and head.ways == ("few queries", "all queries")
    decoded = []
    for way in head.ways:
        head.force(way)
        decoded.append(int((raw_of(model, x).logits.amax(-1) > -100).sum()))
    assert decoded == [FEW, ALL]
    with pytest.raises(ValueError, match="way: got 'none'"):
        head.force("none")
    assert build(FAMILIES[0]).head.ways == ()


def test_maps_with_no_more_cells_than_few() -> None:
    model = build(FAMILIES[0], few_queries=FEW, few_below=0.0)
    small = torch.rand(1, 3, 32, 64)
    cells = sum((32 // stride) * (64 // stride) for stride in model.head.strides)
    assert cells <= FEW
    assert raw_of(model, small).logits.shape[1] == cells


@pytest.mark.parametrize("selection", [dict(few_queries=0), dict(few_queries=ALL), dict(few_queries=5, few_below=-0.1)])
def test_values_that_cannot_be(selection: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"few_queries: got|few_below: got"):
        build(FAMILIES[0], **selection)
