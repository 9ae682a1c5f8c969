"""Terms on maps and logits, and the adapters between networks of different channels and strides."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from efftasks.models.guides.adapters import ConvAdapter, MaskedGenerator, resized
from efftasks.models.guides.sources import Measured, Networks
from efftasks.models.guides.terms import ClassMap, LogitTerm, MapTerm
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages


def networks(student: tuple[int, ...], teacher: tuple[int, ...]) -> Networks:
    """Networks with maps of these channels."""
    own, other = (tuple(FeatureSpec(c, 8 * 2**i) for i, c in enumerate(x)) for x in (student, teacher))
    return Networks(Measured(nn.Identity(), own), Measured(nn.Identity(), other), "terms.a")


def test_resized() -> None:
    maps = torch.rand(1, 2, 4, 6)
    torch.testing.assert_close(resized(maps, (2, 3)), functional.avg_pool2d(maps, 2))
    torch.testing.assert_close(resized(maps, (4, 3)), functional.avg_pool2d(maps, (1, 2)))
    assert resized(maps, maps.shape[2:]) is maps
    larger = resized(maps, (8, 12))
    assert larger.shape == (1, 2, 8, 12)
    torch.testing.assert_close(larger[..., 1, 1], (maps[..., :2, :2] * torch.tensor([[9, 3], [3, 1]]) / 16).sum((2, 3)))


def test_map_term_by_hand() -> None:
    loss = dict(type="FeatureMSELoss", weight=3.0)
    term = MapTerm(networks((4, 5), (6, 7, 5)), loss, "features", ["features[1]", "features[2]"])
    own = (torch.rand(2, 4, 8, 8), torch.rand(2, 5, 4, 4))
    other = (torch.rand(2, 6, 8, 8), torch.rand(2, 7, 4, 4), torch.rand(2, 5, 2, 2))
    value = term(Stages(own, None), Stages(other, None), None)[""]
    adapters: Any = term.adapters
    expected = [
        (functional.avg_pool2d(adapter.conv(a), 2) - b).square().mean()
        for adapter, a, b in zip(adapters, own, other[1:])
    ]
    torch.testing.assert_close(value, 3 * (expected[0] + expected[1]) / 2)


def test_a_loss_without_a_projection_has_one_only_where_channels_differ() -> None:
    term = MapTerm(networks((4, 6), (4, 8)), dict(type="PKDLoss"))
    assert [type(adapter) for adapter in term.adapters] == [nn.Identity, ConvAdapter]
    assert [name for name, _ in term.named_parameters()] == ["adapters.1.conv.weight"]  # a bias would change nothing
    given = MapTerm(networks((4,), (4,)), dict(type="PKDLoss"), adapter=dict(type="ConvAdapter"))
    assert isinstance(given.adapters[0], ConvAdapter)


def test_numbers_of_maps_differ() -> None:
    with pytest.raises(UserError, match=r"terms\.a: got 2 tensors of the student and 3 of the teacher"):
        MapTerm(networks((4, 5), (4, 5, 6)), dict(type="PKDLoss"))
    with pytest.raises(UserError, match=r"terms\.a\.teacher: got 'features\[2\]', allowed are indices of 2 maps"):
        MapTerm(networks((4, 5), (4, 5)), dict(type="PKDLoss"), ["features[0]"], ["features[2]"])


@pytest.mark.parametrize(("name", "channels"), [("student", (3, 6)), ("teacher", (4, 3))])
def test_a_network_that_was_pruned_where_it_is_compared(name: str, channels: tuple[int, int]) -> None:
    term = MapTerm(networks((4,), (6,)), dict(type="PKDLoss"))
    own, other = (Stages((torch.rand(1, c, 2, 2),), None) for c in channels)
    with pytest.raises(
        UserError,
        match=rf"terms\.a\.{name}: a map of the {name} has 3 channels and .* config {4 if name == 'student' else 6}",
    ):
        term(own, other, None)


def test_masked_generation() -> None:
    adapter = MaskedGenerator(2, 3, mask_ratio=0.75)
    seen: list[Tensor] = []
    adapter.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    maps = torch.rand(4, 2, 32, 32)
    result = adapter(maps, (32, 32))
    (masked,) = seen
    dropped = (masked == 0).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.75, abs=0.03)
    kept = ~dropped[:, None].expand_as(masked)
    assert torch.equal(masked[kept], adapter.align(maps, (32, 32))[kept])  # all channels of a pixel, or none
    torch.testing.assert_close(result, adapter.generator(masked))
    term = MapTerm(networks((4,), (4,)), dict(type="MGDLoss"))
    assert isinstance(term.adapters[0], MaskedGenerator)
    with pytest.raises(ValueError, match="mask_ratio: got 1"):
        MaskedGenerator(2, 3, mask_ratio=1.0)


def test_logits_in_the_order_of_the_students_classes() -> None:
    term = LogitTerm(networks((), ()), dict(type="LogitKLLoss"))
    teacher = torch.randn(2, 4, 3, 3)
    student = teacher[:, [2, 0, 3]].repeat_interleave(2, 2).repeat_interleave(2, 3)  # at twice the size
    value = term(Stages((), student), Stages((), teacher), ClassMap((2, 0, 3)))[""]
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert term(Stages((), student), Stages((), teacher), ClassMap((0, 2, 3)))[""].item() > 0.1


def test_logits_of_points_have_their_classes_last() -> None:
    term = LogitTerm(networks((), ()), dict(type="LogitBCELoss"))
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    value = term(Stages((), student), Stages((), teacher), ClassMap((0, 1, 2)))[""]
    entropy = [
        functional.binary_cross_entropy_with_logits(x, teacher.sigmoid(), reduction="sum") for x in (student, teacher)
    ]
    torch.testing.assert_close(value, (entropy[0] - entropy[1]) / 10)
    with pytest.raises(UserError, match=r"terms\.a: got logits .* of \(2, 3, 5\) of the student and of \(2, 3, 6\)"):
        term(Stages((), student), Stages((), torch.randn(2, 6, 3)), ClassMap((0, 1, 2)))


def test_labels_of_the_teacher() -> None:
    labels, known = ClassMap((2, 0)).labels(torch.tensor([0, 1, 2]))
    assert labels.tolist() == [1, 0, 0] and known.tolist() == [True, False, True]
