"""Which channels belong together: small networks by hand, and the dependency graph of torch-pruning."""

from __future__ import annotations

from types import ModuleType

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import nn

from efftasks.compression.folding import strip_model
from efftasks.compression.pruning.groups import ChannelGroup, ModelGroups, find_groups
from efftasks.compression.pruning.labels import Labels
from efftasks.compression.pruning.targets import count_parameters

SIZE = (16, 16)


def sides(group: ChannelGroup) -> set[tuple[str, str]]:
    return {tuple(member.axis) for member in group.members}  # type: ignore[misc]


def by_name(found: ModelGroups) -> dict[str, ChannelGroup]:
    return {group.name: group for group in found.groups}


def test_sets_of_labels_merge_with_their_locks() -> None:
    labels = Labels()
    a, b, c, d = labels.new(4)
    labels.lock([c], "first")
    labels.union(a, b)
    labels.union(c, d)
    assert labels.find(a) == labels.find(b) != labels.find(c)
    assert labels.reason(a) is None and labels.reason(d) == "first"
    labels.union(b, d)
    labels.lock([a], "second")
    assert {labels.find(x) for x in (a, b, c, d)} == {labels.find(a)} and labels.reason(a) == "first"


def test_a_layer_its_norm_and_its_reader(networks: ModuleType) -> None:
    found = find_groups(networks.Chain(), SIZE)
    (group,) = found.groups
    assert sides(group) == {("first", "out"), ("norm", "norm"), ("last", "in")} and group.size == 8
    assert all(member.channels == tuple((i,) for i in range(8)) for member in group.members)
    assert found.excluded.keys() == {"last"}  # the output


def test_maps_that_are_added_are_one(networks: ModuleType) -> None:
    groups = by_name(find_groups(networks.Residual(), SIZE))
    assert groups.keys() == {"stem", "inner"}
    assert sides(groups["stem"]) == {("stem", "out"), ("outer", "out"), ("inner", "in"), ("last", "in")}
    assert sides(groups["inner"]) == {("inner", "out"), ("outer", "in")} and groups["inner"].size == 16


def test_halves_lose_the_same_channels(networks: ModuleType) -> None:
    groups = by_name(find_groups(networks.Elan(), SIZE))
    assert {name: group.size for name, group in groups.items()} == {"split": 8, "pair": 8, "merge": 4}
    channels = {tuple(member.axis): member.channels for member in groups["split"].members}
    assert channels[("split", "out")] == tuple((i, i + 8) for i in range(8))
    assert channels[("pair", "in")] == tuple((i,) for i in range(8))
    # The second half is the first part of the concatenation.
    assert sorted(channels[("merge", "in")]) == [(i, i + 8) for i in range(8)]
    assert {tuple(m.axis): m.channels for m in groups["pair"].members}[("merge", "in")][0] == (16,)
    # A layer with multiples of 8 reads the halves: of pairs, 8.
    assert groups["split"].width() == 1 and groups["split"].step(8) == 8 and groups["split"].step(1) == 1


def test_depthwise_layers_gates_and_scales_follow(networks: ModuleType) -> None:
    groups = by_name(find_groups(networks.Depthwise(), SIZE))
    wide = groups["expand"]
    assert {("expand", "out"), ("depth", "in"), ("depth", "out"), ("squeeze", "in"), ("excite", "out")} <= sides(wide)
    assert sides(groups["squeeze"]) == {("squeeze", "out"), ("excite", "in")}
    assert sides(groups["project"]) == {("project", "out"), ("scale", "dim0"), ("last", "in")}


def test_groups_of_a_convolution_stay_whole(networks: ModuleType) -> None:
    (group,) = find_groups(networks.Grouped(), SIZE).groups
    channels = {tuple(member.axis): member.channels for member in group.members}
    assert group.size == 4
    assert (
        channels[("first", "out")]
        == channels[("grouped", "in")]
        == tuple(tuple(range(i, i + 4)) for i in (0, 4, 8, 12))
    )
    assert channels[("last", "in")][1] == tuple(range(8, 16))
    assert group.width() == 4 and group.step(8) == 2


def test_of_a_transformer_the_feed_forward_networks(networks: ModuleType) -> None:
    found = find_groups(networks.Tokens(), SIZE)
    groups = by_name(found)
    assert groups.keys() == {"fc1", "w12"}
    assert sides(groups["fc1"]) == {("fc1", "out"), ("fc2", "in")}
    channels = {tuple(member.axis): member.channels for member in groups["w12"].members}
    assert channels == {
        ("w12", "out"): tuple((i, i + 24) for i in range(24)),
        ("w3", "in"): tuple((i,) for i in range(24)),
    }
    assert "multi_head_attention_forward" in found.excluded["patches"]
    assert found.unknown == ("multi_head_attention_forward",)


def test_what_is_not_understood_is_left_alone_with_a_reason(networks: ModuleType) -> None:
    found = find_groups(networks.Strange(), SIZE)
    assert set(by_name(found)) == {"free"}
    for name, words in dict(
        shuffled="pixel_shuffle reads them", sliced="__getitem__", folded="reshape", summed="sum reads them"
    ).items():
        assert words in found.excluded[name]
    assert found.unknown == ("conv2d", "pixel_shuffle")


def test_a_layer_for_two_maps_ties_them(networks: ModuleType) -> None:
    (group,) = find_groups(networks.Twice(), SIZE).groups
    assert sides(group) == {("one", "out"), ("two", "out"), ("shared", "in")}


def test_parts_for_training_keep_their_channels_but_follow_the_others(networks: ModuleType) -> None:
    model = networks.Branches().train()
    found = find_groups(model, SIZE)
    assert set(by_name(found)) == {"stem", "main"} and found.excluded["other"] == "only training uses it"
    assert ("other", "in") in sides(by_name(found)["stem"])
    assert found.training_only == {"other", "other_out"}
    assert model.training and model.stem.training


def test_what_only_the_file_runs_is_no_part_for_training(families: ModuleType) -> None:
    """The parameters of inference are those that are left when the parts for training are dropped."""
    model = families.build_family("o2o_all")
    found = find_groups(model, (96, 96))
    assert any(name.startswith("semantic_head.") for name, _ in model.named_parameters())
    assert not any(name.startswith("semantic_head.") for name in found.training_only)
    kept = sum(parameter.numel() for parameter in strip_model(model).parameters())
    assert count_parameters(model, found.training_only) == kept


def test_the_model_stays_as_it_was(networks: ModuleType) -> None:
    model = networks.Chain().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    find_groups(model, SIZE)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state()) and model.norm.training
    assert not model.first._forward_hooks and not model.first._forward_pre_hooks


@pytest.mark.parametrize("name", ["Chain", "Residual", "Depthwise"])
def test_groups_are_those_of_torch_pruning(networks: ModuleType, name: str) -> None:
    pruning = pytest.importorskip("torch_pruning")
    model = getattr(networks, name)()
    graph = pruning.DependencyGraph().build_dependency(model, torch.rand(1, 3, *SIZE))
    names = {layer: key for key, layer in model.named_modules()}
    for group in find_groups(model, SIZE).groups:
        layer = model.get_submodule(group.name)
        reference = graph.get_pruning_group(layer, pruning.prune_conv_out_channels, list(range(layer.out_channels)))
        expected = {
            (names[dep.target.module], "in" if graph.is_in_channel_pruning_fn(dep.handler) else "out")
            for dep, _ in reference
            if isinstance(dep.target.module, nn.Conv2d) and dep.target.module.groups == 1
        }
        own = {
            tuple(member.axis)
            for member in group.members
            if isinstance(layer := dict(model.named_modules()).get(member.axis.layer), nn.Conv2d) and layer.groups == 1
        }
        assert own == expected
