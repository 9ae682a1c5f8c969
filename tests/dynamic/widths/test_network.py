"""Networks of several widths, against networks that are cut and have weights of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from efftasks.compression.pruning.slicing import cut
from efftasks.dynamic.widths.plans import width_plans
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import Elastic

FAMILIES = ("fpnlite", pytest.param("o2o", marks=pytest.mark.slow))
Built = Callable[..., Any]


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def equal(one: Any, other: Any) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return bool(pairs) and all(torch.equal(a, b) for a, b in pairs)


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_width_is_the_network_that_is_cut(families: ModuleType, dense: Built, slimmed: Built, family: str) -> None:
    """To the last bit, in evaluation and in training."""
    network, images, side = slimmed(family), families.images(family), families.side_of(family)
    plans = width_plans(dense(family), (side, side), network.choices(), False, 4)
    for width, plan in zip(network.choices(), plans):
        expected = dense(family).eval()
        cut(expected, plan)
        network.activate(width)
        with torch.no_grad():
            assert equal(network.eval()(images), expected(images))
        if family == "o2o":  # the other one has dropout
            assert equal(network.train()(images), expected.train()(images))
        if width < 1:
            assert sum(p.numel() for p in expected.parameters()) < width * sum(
                p.numel() for p in dense(family).parameters()
            )


def test_the_active_width_can_be_taken_out(families: ModuleType, slimmed: Built) -> None:
    network, images = slimmed("fpnlite"), families.images("fpnlite")
    assert issubclass(type(network), Elastic) and network.choices() == (1.0, 0.5, 0.25) and network.active == 1.0
    own = {x.untyped_storage().data_ptr() for x in (*network.parameters(), *network.buffers())}
    for width in network.choices():
        network.activate(width)
        plain = network.extract()
        assert type(plain).__name__ == "Segmentor" and plain.guide is None and not plain.training
        assert not any("narrower" in name for name in plain.state_dict())
        assert own.isdisjoint(x.untyped_storage().data_ptr() for x in (*plain.parameters(), *plain.buffers()))
        with torch.no_grad():
            assert equal(plain(images), network(images))
    with pytest.raises(UserError, match=r"width: got 0\.3, expected one of 1, 0\.5, 0\.25"):
        network.activate(0.3)
    assert network.active == 0.25


def test_weights_have_the_names_of_the_dense_model(dense: Built, slimmed: Built) -> None:
    names, state = set(dense().state_dict()), slimmed().state_dict()
    assert names < set(state)
    norms = {f"{name}." for name in norms_of(dense())}
    assert all(name.partition("narrower.")[0] in norms for name in set(state) - names)


def test_gradients_reach_all_weights(families: ModuleType, slimmed: Built) -> None:
    network = slimmed("fpnlite").train()
    losses = network(families.images("fpnlite"), families.samples("fpnlite", "semantic segmentation"), mode="loss")
    network.parse_losses(losses)[0].backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters())


def test_gradients_of_a_width_reach_its_part_alone(families: ModuleType, dense: Built, slimmed: Built) -> None:
    network, images = slimmed("fpnlite"), families.images("fpnlite")
    network.activate(0.25)
    network(images).square().sum().backward()
    small = dict(network.extract().named_parameters())
    for name, parameter in network.named_parameters():
        if "narrower.0" in name or name not in small:
            assert parameter.grad is None or "narrower.1" in name
        elif isinstance(network.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d):
            assert parameter.grad is None, name  # that of the widest
        elif not name.startswith("auxiliary_head"):
            part = tuple(slice(count) for count in small[name].shape)  # the first channels
            inside = parameter.grad[part].clone()
            parameter.grad[part] = 0
            assert inside.any() and not parameter.grad.any(), name


def test_statistics_of_widths_are_apart(families: ModuleType, slimmed: Built) -> None:
    network = slimmed("fpnlite").train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.activate(0.5)
    with torch.no_grad():
        network(families.images("fpnlite"))
    changed = {name for name, value in network.named_buffers() if not torch.equal(value, before[name])}
    assert changed and all(".narrower.0." in name for name in changed)


def test_a_copy_is_complete(families: ModuleType, slimmed: Built) -> None:
    """As that of averaged weights: its widths use its own weights."""
    network, images = slimmed("fpnlite"), families.images("fpnlite")
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.1)
    for width in network.choices():
        network.activate(width)
        copied.activate(width)
        with torch.no_grad():
            assert not equal(network(images), copied(images))
    copied.load_state_dict(network.state_dict())
    for width in network.choices():
        network.activate(width)
        copied.activate(width)
        with torch.no_grad():
            assert equal(network(images), copied(images))


def test_it_moves_as_a_whole(families: ModuleType, slimmed: Built) -> None:
    network, images = slimmed("fpnlite").double(), families.images("fpnlite").double()
    for width in network.choices():
        network.activate(width)
        assert network(images).dtype == torch.float64
        assert all(x.dtype == torch.float64 for x in network.extract().parameters())


def test_sandwich_rule(toy: Built) -> None:
    assert toy((1.0, 0.5, 0.25)).widths_of_step() == [1.0, 0.25, 0.5]
    some = toy((1.0, 0.75, 0.5, 0.3, 0.25), sampled=3)
    steps = [some.widths_of_step() for _ in range(40)]
    assert all(step[:2] == [1.0, 0.25] and len(step) == 3 for step in steps)
    assert {step[2] for step in steps} == {0.75, 0.5, 0.3}
    assert toy((1.0, 0.5), sampled=2).widths_of_step() == [1.0, 0.5]
    assert toy((0.5,)).widths_of_step() == [0.5]


def test_progress_reaches_all_widths(slimmed: Built) -> None:
    network = slimmed()
    network.set_progress(0.4)
    for width in network.choices():
        network.activate(width)
        assert network.extract().head.progress == 0.4


def test_modes_reach_all_widths(slimmed: Built) -> None:
    network = slimmed("fpnlite").train()
    assert all(norm.training for norm in norms_of(network).values())
    assert not any(norm.training for norm in norms_of(network.eval()).values())
