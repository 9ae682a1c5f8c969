"""Recorders of module outputs, and the names of what they record."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from efftasks.models.guides.recording import check_path, observe, recorded
from efftasks.models.guides.sources import Measured, Source, sources_of, tensors
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages


class Network(nn.Module):
    """Two layers, the second of which runs twice, and a module with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.split = Split()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.split(self.second(self.second(self.first(x))))[0]


class Split(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :1], x[:, 1:]


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_outputs_are_those_of_the_modules_and_hooks_go() -> None:
    network, images = Network().eval(), torch.rand(2, 3, 8, 8)
    with recorded(network, ("first", "second", "split")) as outputs:
        result = network(images)
        assert hooks(network) == 3
    assert hooks(network) == 0 and set(outputs) == {"first", "second", "split"}
    assert torch.equal(outputs["first"], network.first(images)) and outputs["first"].requires_grad
    last = network.second(network.second(outputs["first"]))  # it ran twice: the last output counts
    assert torch.equal(outputs["second"], last)
    assert torch.equal(outputs["split"][0], result)
    network(images)
    assert torch.equal(outputs["second"], last)  # nothing is recorded afterwards


class Pair(NamedTuple):
    logits: Any
    boxes: Any


class Both(nn.Module):
    def forward(self, x: torch.Tensor) -> Pair:
        return Pair([x + 1], x - 1)


def test_what_comes_after_a_module_does_not_change_its_output() -> None:
    """An activation that works in place, as in most backbones, also on parts of an output."""
    network, images = (
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        torch.rand(2, 3, 8, 8),
    )
    with recorded(network, ("1",)) as outputs:
        result = network(images)
    torch.testing.assert_close(outputs["1"], network[1](network[0](images)))
    assert outputs["1"].min() < 0 <= result.min()
    outputs["1"].sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    both = nn.Sequential(Both())
    with recorded(both, ("0",)) as outputs:
        pair = both(torch.full((2,), 3.0))
        pair.logits[0].zero_()
        pair.boxes.zero_()
    assert isinstance(outputs["0"], Pair)
    assert outputs["0"].logits[0].tolist() == [4, 4] and outputs["0"].boxes.tolist() == [2, 2]


def test_hooks_go_after_an_error_and_copies_have_none() -> None:
    network = Network()
    with pytest.raises(RuntimeError), recorded(network, ("first",)):
        network(torch.rand(2, 5, 8, 8))
    assert hooks(network) == 0
    with pytest.raises(AttributeError), recorded(network, ("first", "third")):
        raise AssertionError("not reached")
    assert hooks(network) == 0
    with recorded(network, ("first",)) as outputs:
        network(torch.rand(1, 3, 8, 8))
    kept = outputs["first"].clone()
    copy.deepcopy(network)(torch.rand(1, 3, 8, 8))
    assert torch.equal(outputs["first"], kept)


def test_a_wrong_name_lists_similar_ones() -> None:
    with pytest.raises(
        UserError, match=r"terms\.x\.student: got 'secnd\.0', .* Network; similar are second\.0, second"
    ):
        check_path(Network(), "secnd.0", "terms.x.student")
    with pytest.raises(UserError, match=r"similar are first, second, split"):
        check_path(Network(), "head.decoder", "a")


def value(text: str, stages: Stages) -> Any:
    (source,) = sources_of(text, "here")
    return source.value(stages)


def test_sources() -> None:
    maps: Any = (1, 2)
    stages = Stages(maps, Pair((5, 6), 7), {"neck.out": (8, 9), "head": 3})
    assert value("features", stages) == (1, 2) and value("features[-1]", stages) == 2
    assert value("raw.boxes", stages) == 7 and value("raw.logits[0]", stages) == 5
    assert value("neck.out[1]", stages) == 9 and value("head", stages) == 3
    assert sources_of(["raw", "neck.0.conv[2]"], "x") == (
        Source("raw", "x", None, ("raw",)),
        Source("neck.0.conv[2]", "x", "neck.0.conv", (2,)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features[2]", r"here: got 'features\[2\]', but a tuple has no 2"),
        ("raw.scores", "here: got 'raw.scores', but a Pair has no scores"),
        ("backbone", "here: got 'backbone', but that module does not run"),
        ("features[", r"here: got 'features\[', expected features, raw or a module"),
        ("", "here: got '', expected"),
    ],
)
def test_wrong_sources_are_one_sentence(text: str, message: str) -> None:
    maps: Any = (1, 2)
    with pytest.raises(UserError, match=message):
        value(text, Stages(maps, Pair(5, 6)))


def test_only_tensors_are_compared() -> None:
    stages = Stages((torch.zeros(1), torch.ones(2)), Pair(torch.zeros(3), None))
    assert [len(x) for x in tensors(sources_of(["features", "raw.logits"], "here"), stages)] == [1, 2, 3]
    with pytest.raises(UserError, match=r"here: got 'raw', a Pair, expected a tensor or several"):
        tensors(sources_of("raw", "here"), stages)


def test_channels_are_measured_without_a_trace() -> None:
    network = Network()
    before = {key: buffer.clone() for key, buffer in network.state_dict().items()}
    state = torch.get_rng_state()
    measured = Measured(network, (FeatureSpec(6, 8), FeatureSpec(7, 16)), (16, 16))
    assert measured.channels(sources_of(["first", "split"], "here")) == [4, 1, 3]
    assert measured.channels(sources_of("features", "here")) == [6, 7]  # as declared, without a run
    assert measured.channels(sources_of("features[-1]", "here")) == [7]
    assert torch.equal(torch.get_rng_state(), state) and network.training and network.second[1].training
    assert all(torch.equal(buffer, before[key]) for key, buffer in network.state_dict().items())
    with pytest.raises(UserError, match=r"here: got 'features\[2\]', allowed are indices of 2 maps"):
        measured.channels(sources_of("features[2]", "here"))


def test_a_network_without_stages_is_called() -> None:
    network, images = Network().eval(), torch.rand(1, 3, 8, 8)
    stages = observe(network, images, ("first",))
    assert stages.features == () and torch.equal(stages.raw, network(images))
    assert torch.equal(stages.recorded["first"], network.first(images)) and stages.model is network
