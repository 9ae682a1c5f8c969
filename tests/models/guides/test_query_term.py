"""Distillation by shared queries: by hand, the content of the queries, and what it reaches."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from efftasks.models.det_heads.layered_decoder import DecoderOutputs
from efftasks.models.det_heads.query_raw import LayerOutput, QueryRaw
from efftasks.models.det_heads.query_selection import QuerySelection, SelectedQueries
from efftasks.models.guides.query_term import SharedQueryTerm, cells_at
from efftasks.models.guides.recording import observe
from efftasks.models.guides.sources import Measured, Networks
from efftasks.models.guides.terms import ClassMap
from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages


@pytest.fixture(autouse=True)
def scope() -> None:
    DefaultScope.get_instance("test-queries", scope_name="efftasks")


def term(student: Any, teacher: Any, **arguments: Any) -> SharedQueryTerm:
    return SharedQueryTerm(Networks(Measured(student, ()), Measured(teacher, ()), "terms.a"), **arguments)


def test_the_cell_of_the_map_with_the_highest_score() -> None:
    selection = QuerySelection(2, 3, project=False)
    selection.score_head.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    fine, coarse = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 2, 4)
    centers = torch.tensor([[[0.4, 0.6], [0.95, 0.05], [1.0, 1.0]]])
    found = cells_at(selection, [fine, coarse], centers)
    for k, (x, y) in enumerate(((3, 2), (7, 0), (7, 3))):
        cells = fine[0, :, y, x], coarse[0, :, y // 2, x // 2]
        assert torch.equal(found[0, k], max(cells, key=lambda cell: cell[:2].max().item()))


def test_at_the_centers_of_selected_cells_it_is_the_selected_content(families: ModuleType) -> None:
    selection = families.build_family("dfine").head.selection
    channels = selection.score_head.in_features
    level = torch.randn(2, channels, 6, 6)
    with torch.no_grad():  # a new selection proposes the anchors, whose centers are those of the cells
        selected = selection([level])
        content = cells_at(selection, [level], selected.box_logits.sigmoid()[..., :2])
    inside = selected.box_logits.isfinite().all(-1)
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(content[inside], selected.content[inside])


class Decoder(torch.nn.Module):
    """Returns two given layers, and notes its arguments."""

    def __init__(self, layers: tuple[LayerOutput, ...]) -> None:
        super().__init__()
        self.layers, self.given = layers, ()

    def forward(self, *arguments: Any) -> DecoderOutputs:
        self.given = arguments
        return DecoderOutputs(self.layers, None)


def test_by_hand(families: ModuleType) -> None:
    student = families.build_family("dfine")
    made = term(student, student, num_queries=1, class_weight=2.0, l1_weight=3.0, giou_weight=4.0)
    own = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    boxes = torch.tensor([[[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.2, 0.4]]])
    layers = tuple(LayerOutput(torch.full((1, 1, 1), logit), own) for logit in (0.0, 1.0))
    channels = student.head.selection.score_head.in_features
    head = SimpleNamespace(decoder=Decoder(layers), selection=student.head.selection)
    recorded = {path: torch.randn(1, channels, 4, 4) for path in made.student_paths}
    seen = Stages(
        (),
        QueryRaw(torch.tensor([[[-1.0, -9.0], [2.0, -9.0]]]), boxes, torch.ones(4), None),
        {"head.selection": SelectedQueries(torch.zeros(1, 2, 7), torch.tensor([[[1.0] * 4, [0.3] * 4]]), None)},  # type: ignore[arg-type]
    )
    found = made(Stages((), None, recorded, SimpleNamespace(head=head)), seen, ClassMap((0,)))
    # The second query is the better one. Its proposal and the student's cell there are decoded.
    content, proposed, maps = head.decoder.given
    assert torch.equal(proposed, torch.full((1, 1, 4), 0.3)) and len(maps) == len(recorded)
    expected = cells_at(head.selection, list(recorded.values()), torch.full((1, 1, 2), 0.3).sigmoid())
    assert torch.equal(content, expected)
    p = 1 / (1 + np.exp(-2.0))
    cls = []
    for logit in (0.0, 1.0):
        q = 1 / (1 + np.exp(-logit))
        cls.append(abs(p - q) * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
    assert found["cls"].item() == pytest.approx(2 * np.mean(cls), rel=1e-4)  # Q is below 1, and counts as 1
    assert found["l1"].item() == pytest.approx(3 * p * 0.2, rel=1e-4)
    assert found["giou"].item() == pytest.approx(4 * p * 0.5, rel=1e-4)  # one box in the other, half its size


@pytest.mark.parametrize("name", ["dfine", "deimv2_lite", "rtdetrv2"])
def test_it_trains_the_decoder_and_counts_a_batch_once(name: str, families: ModuleType) -> None:
    student, teacher = families.build_family(name).train(), families.build_family("dfine").eval()
    made = term(student, teacher, num_queries=5)
    images = families.images(name)
    own = observe(student, images, made.student_paths)
    statistics = {key: value.clone() for key, value in student.state_dict().items() if "running" in key}
    with torch.no_grad():
        seen = observe(teacher, images, made.teacher_paths)
    losses = made(own, seen, ClassMap((0, 1, 2)))
    assert set(losses) == set(made.parts)
    sum(losses.values()).backward()
    for start in ("head.decoder.score_heads.0", "head.decoder.layers.0", "backbone"):
        assert any(n.startswith(start) and p.grad is not None for n, p in student.named_parameters())
    assert all(p.grad is None for p in teacher.parameters())
    now = student.state_dict()
    assert statistics and all(torch.equal(now[key], value) for key, value in statistics.items())


def test_other_heads_are_refused(families: ModuleType) -> None:
    query, points = families.build_family("dfine"), families.build_family("o2o")
    with pytest.raises(UserError, match=r"terms\.a: the student: got a O2OHead, expected a head of type QueryHead"):
        term(points, query)
    with pytest.raises(UserError, match=r"terms\.a: the teacher: got a O2OHead, expected a head of type QueryHead"):
        term(query, points)
