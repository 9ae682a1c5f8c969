"""The criterion against numbers recorded from the authors' criteria; see tests/fixtures/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmengine.config import Config

from efftasks.models.det_heads.query_raw import Bins, DenoisingQueries, LayerOutput, QueryTargets, TrainingOutputs
from efftasks.models.losses.set_criterion import SetCriterion
from efftasks.ops.distribution import bin_values
from efftasks.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
IMAGES, QUERIES, CLASSES, LAYERS, BINS, GROUPS, MOST = 2, 12, 4, 3, 32, 2, 3
DENOISING = 2 * MOST * GROUPS
LABELS = [[1, 3, 0], [2, 0, 0]]
VALID = [[True, True, True], [True, False, False]]
BOXES = [
    [[0.3, 0.3, 0.2, 0.3], [0.6, 0.5, 0.5, 0.4], [0.7, 0.8, 0.1, 0.15]],
    [[0.5, 0.4, 0.6, 0.5], [0.0] * 4, [0.0] * 4],
]


def arrays() -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    count = DENOISING + QUERIES
    objects = [np.array(BOXES[0]), np.array(BOXES[1][:1])]

    def near() -> np.ndarray:
        base = np.stack([np.resize(boxes, (count, 4)) for boxes in objects])
        return np.clip(base + 0.08 * random.standard_normal((IMAGES, count, 4)), 0.03, 0.97)

    made: dict[str, np.ndarray] = {"initial": near()}
    for i in range(LAYERS):
        made[f"logits{i}"] = random.standard_normal((IMAGES, count, CLASSES))
        made[f"boxes{i}"] = near()
        made[f"corners{i}"] = 2 * random.standard_normal((IMAGES, count, 4, BINS + 1))
    made["first_logits"] = random.standard_normal((IMAGES, count, CLASSES))
    made["first_boxes"] = near()
    made["select_logits"] = random.standard_normal((IMAGES, QUERIES, CLASSES))
    made["select_boxes"] = near()[:, :QUERIES]
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in made.items()}


def outputs(with_sides: bool) -> TrainingOutputs:
    a = arrays()
    layers = tuple(
        LayerOutput(a[f"logits{i}"], a[f"boxes{i}"], a[f"corners{i}"], a["initial"])
        if with_sides
        else LayerOutput(a[f"logits{i}"], a[f"boxes{i}"])
        for i in range(LAYERS)
    )
    empty = torch.zeros(IMAGES, DENOISING, 4)
    return TrainingOutputs(
        layers=layers,
        first=LayerOutput(a["first_logits"], a["first_boxes"]) if with_sides else None,
        proposals=LayerOutput(a["select_logits"], a["select_boxes"]),
        denoising=DenoisingQueries(empty, empty, torch.zeros(0, 0, dtype=torch.bool), GROUPS),
    )


def targets() -> QueryTargets:
    return QueryTargets(torch.tensor(LABELS), torch.tensor(BOXES), torch.tensor(VALID))


def criterion(base: str, **changes: Any) -> SetCriterion:
    cfg = Config.fromfile(ROOT / "configs" / "_base_" / "models" / f"{base}.py").model.head.criterion.to_dict()
    cfg.pop("type")
    return SetCriterion(**(cfg | changes))


CASES = {
    "dfine": ("dfine", {}, 0.0),
    "deim": ("dfine", {"class_term": dict(type="efftasks.MatchabilityTerm", gamma=1.5)}, 0.0),
    "deimv2-lite": ("deimv2_lite", {}, 0.0),
    "deimv2-late": ("deimv2", {}, 0.9),
    "rtdetrv2": ("rtdetrv2", {}, 0.0),
}


@pytest.fixture(autouse=True)
def scope():
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


@pytest.mark.parametrize("case", CASES)
def test_terms_equal_the_authors(case: str) -> None:
    base, changes, progress = CASES[case]
    recorded = json.loads((FIXTURES / f"losses_{case}.json").read_text())
    loss = criterion(base, **changes)
    loss.set_progress(progress)
    bins = None if case == "rtdetrv2" else Bins(bin_values(), 4.0)
    losses = loss(outputs(with_sides=bins is not None), targets(), bins)

    expected = {name: value for name, value in recorded["losses"].items() if value != 0.0}
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("case", CASES)
def test_matching_equals_the_authors(case: str) -> None:
    base, changes, progress = CASES[case]
    recorded = json.loads((FIXTURES / f"losses_{case}.json").read_text())["matching"]
    loss = criterion(base, **changes)
    loss.set_progress(progress)
    last = outputs(with_sides=False).layers[-1]
    plain = LayerOutput(last.logits[:, DENOISING:], last.boxes[:, DENOISING:])
    (matching,) = loss.matcher([plain], targets())
    pairs = set(zip(matching.image.tolist(), matching.query.tolist(), matching.target.tolist()))
    assert pairs == {(i, q, t) for i, (queries, objects) in enumerate(recorded) for q, t in zip(queries, objects)}


def nothing() -> QueryTargets:
    return QueryTargets(
        torch.zeros(IMAGES, 0, dtype=torch.long), torch.zeros(IMAGES, 0, 4), torch.zeros(IMAGES, 0, dtype=torch.bool)
    )


@pytest.mark.parametrize("base", ["dfine", "deimv2", "deimv2_lite", "rtdetrv2"])
def test_without_objects_losses_are_finite_and_reach_everything(base: str) -> None:
    loss = criterion(base)
    raw = outputs(with_sides=base != "rtdetrv2")
    leaves = [x.requires_grad_() for layer in raw.layers for x in layer[:2]]
    raw = raw._replace(denoising=None)
    bins = None if base == "rtdetrv2" else Bins(bin_values(), 4.0)
    losses = loss(raw, nothing(), bins)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert bool(torch.isfinite(total))
    assert all(leaf.grad is not None for leaf in leaves)
    assert all(float(value) == 0 for name, value in losses.items() if "bbox" in name or "giou" in name)


def test_distillation_needs_the_union() -> None:
    with pytest.raises(ValueError, match="union"):
        criterion("dfine", union=False)


def test_the_name_in_old_configs_builds_the_same_term() -> None:
    old = MODELS.build(dict(type="LocalisationDistillation", weight=2.0))
    assert type(old) is type(MODELS.build(dict(type="LocalizationDistillation"))) and old.weight == 2.0
