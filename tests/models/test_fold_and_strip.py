"""Folding and stripping of every family: each alone, and both for inference."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from efftasks.compression.folding import fold_model, inference_model, strip_model

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "_base_" / "models").glob("*.py"))
# An input of 800 px; and families whose parts others here have, too (o2o_all, dfine_masks).
SLOW = ("lraspp", "o2o", "o2o_masks", "o2o_keypoints", "dfine")


class Family(NamedTuple):
    """A model in training mode and what it is tried on."""

    name: str
    model: Any
    images: Tensor


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES]
)
def family(request: pytest.FixtureRequest, families: ModuleType) -> Family:
    """Each base config in turn, its norms as after some training."""
    model = families.build_family(request.param)
    families.randomize_norms(model)
    return Family(request.param, model.train(), families.images(request.param))


def flat(outputs: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    children = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [tensor for child in children for tensor in flat(child)]


@torch.no_grad()
def inferred(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What an artifact would give."""
    infer: Any = model.infer
    return flat(infer(images))


@torch.no_grad()
def raw(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The outputs of the head before top-k selection."""
    return flat(model(images, mode="tensor"))


def evaluated(model: Any, images: Tensor, what: Any) -> list[Tensor]:
    """What a model in training mode gives in evaluation mode; it is left as it was."""
    modes = [part.training for part in model.modules()]
    outputs: list[Tensor] = what(model.eval(), images)
    for part, mode in zip(model.modules(), modes):
        part.training = mode
    return outputs


def without_gradient(model: nn.Module, loss: Tensor) -> list[str]:
    model.zero_grad()
    loss.backward()
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_folded_it_says_the_same_and_still_learns(family: Family, families: ModuleType) -> None:
    name, model, images = family
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_model(model)
    assert model.training and not any(part.training for part in folded.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for got, want in zip(raw(folded, images), evaluated(model, images, raw), strict=True):
        assert (got - want).norm() <= 3e-3 * want.norm()
    # What learns unfolded learns folded; what does not (a layer that one batch leaves alone) keeps its name.
    unfolded = families.build_family(name)
    idle = without_gradient(unfolded, families.total_loss(name, unfolded))
    loss = families.total_loss(name, folded)
    assert bool(torch.isfinite(loss)) and loss > 0
    assert set(without_gradient(folded, loss)) <= set(idle)


def test_stripped_it_infers_the_same_to_the_last_bit(family: Family) -> None:
    _, model, images = family
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stripped = strip_model(model)
    assert model.training and not any(part.training for part in stripped.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    expected = evaluated(model, images, inferred)
    assert all(torch.equal(got, want) for got, want in zip(inferred(stripped, images), expected, strict=True))
    # It is a part of the model, and holds no tensor of it.
    left = stripped.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in left.items())
    own = {value.data_ptr() for value in model.state_dict().values() if value.numel()}
    assert not own & {value.data_ptr() for value in left.values() if value.numel()}


@pytest.mark.parametrize("verb", [fold_model, strip_model])
def test_twice_is_once(family: Family, verb: Any) -> None:
    once = verb(family.model)
    twice = verb(once)
    states = once.state_dict(), twice.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert [type(part) for part in once.modules()] == [type(part) for part in twice.modules()]


def test_their_order_does_not_matter(family: Family) -> None:
    _, model, images = family
    one, other = raw(inference_model(model), images), raw(strip_model(fold_model(model)), images)
    assert all(torch.equal(got, want) for got, want in zip(one, other, strict=True))
