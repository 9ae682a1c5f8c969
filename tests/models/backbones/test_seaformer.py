"""SeaFormer: the attention by loops, the authors' names, the published sizes, fusing, export, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import onnxruntime
import pytest
import torch
from mmcv.cnn.bricks.drop import DropPath
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.models.backbones.seaformer import (
    VARIANTS,
    AxisAttention,
    InvertedBottleneck,
    Projections,
    SeaAttention,
    SeaBlock,
    SeaFormer,
    Stage,
    renamed_key,
)
from efftasks.models.layers.conv import ConvNormAct
from efftasks.structures.features import FeatureSpec

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# As published: blocks of attention of each stage that attends, which are the last.
LAYOUTS = {"tiny": (2, 2), "small": (3, 3), "base": (4, 4), "large": (3, 3, 3)}


def small(**changes: Any) -> SeaFormer:
    torch.manual_seed(0)
    return SeaFormer(**{"width": 0.5, **changes})


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def names_of_the_authors(variant: str) -> Iterator[str]:
    """Of the network in fudan-zvg/SeaFormer, without its classifier."""

    def with_norm(layer: str) -> Iterator[str]:
        yield f"{layer}.c.weight"
        yield from (f"{layer}.bn.{name}" for name in NORM)

    yield from with_norm("smb1.stem_block.0")
    for stage, layers in enumerate((3, 2, 2, 1, 1), start=1):
        for i in range(1, layers + 1):
            plain = variant != "large" and (stage, i) == (1, 1)  # expansion 1: no convolution before the depthwise one
            for j in (0, 2) if plain else (0, 2, 4):
                yield from with_norm(f"smb{stage}.layer{i}.conv.{j}")
    for former, blocks in enumerate(LAYOUTS[variant], start=1):
        for i in range(blocks):
            block = f"trans{former}.transformer_blocks.{i}"
            for layer in ("to_q", "to_k", "to_v", "proj.1", "proj_encode_row.1", "proj_encode_column.1"):
                yield from with_norm(f"{block}.attn.{layer}")
            yield from with_norm(f"{block}.attn.dwconv")
            yield from with_norm(f"{block}.attn.pwconv")
            yield from (f"{block}.attn.pos_emb_{axis}{x}.pos_embed" for axis in ("row", "column") for x in "qk")
            yield from with_norm(f"{block}.mlp.fc1")
            yield from with_norm(f"{block}.mlp.fc2")
            yield from (f"{block}.mlp.dwconv.{name}" for name in ("weight", "bias"))


def place(key: str, variant: str) -> str:
    renamed = renamed_key(key, first=5 - len(LAYOUTS[variant]))
    assert renamed is not None
    return renamed


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_name_of_the_authors_has_its_place(variant: str) -> None:
    names = list(names_of_the_authors(variant))
    own = [place(name, variant) for name in names]
    assert len(set(own)) == len(names)
    with torch.device("meta"):
        assert set(own) == set(SeaFormer(variant).state_dict())
    assert all(place(key, variant) == key for key in own)  # this package's own checkpoints


@pytest.mark.parametrize(
    ("variant", "there", "here"),
    [
        ("tiny", "smb1.layer1.conv.2.c.weight", "stem.bottleneck.layers.1.conv.weight"),
        ("large", "smb1.layer1.conv.4.bn.bias", "stem.bottleneck.layers.2.norm.bias"),
        ("tiny", "smb1.layer3.conv.0.c.weight", "stages.0.bottlenecks.1.layers.0.conv.weight"),
        ("tiny", "smb5.layer1.conv.4.c.weight", "stages.4.bottlenecks.0.layers.2.conv.weight"),
        ("tiny", "trans1.transformer_blocks.1.mlp.fc2.c.weight", "stages.3.blocks.1.mlp.project.conv.weight"),
        ("large", "trans1.transformer_blocks.1.mlp.dwconv.bias", "stages.2.blocks.1.mlp.depthwise.bias"),
        (
            "base",
            "trans2.transformer_blocks.3.attn.pos_emb_columnk.pos_embed",
            "stages.4.blocks.3.attention.columns.key_position",
        ),
        (
            "base",
            "trans2.transformer_blocks.0.attn.pos_emb_rowq.pos_embed",
            "stages.4.blocks.0.attention.rows.query_position",
        ),
    ],
)
def test_names_by_hand(variant: str, there: str, here: str) -> None:
    assert place(there, variant) == here


@pytest.mark.parametrize("variant", ["tiny", "large"])
def test_checkpoints_of_the_authors_load(randomised: Any, variant: str, tmp_path: Path) -> None:
    net = randomised(small(variant=variant))
    values = net.state_dict()
    theirs = {name: values[place(name, variant)] for name in names_of_the_authors(variant)}
    head = {"decode_head.conv_seg.bias": torch.zeros(19)}
    files = {
        "segmentor": {"state_dict": {f"backbone.{name}": value for name, value in theirs.items()} | head},
        "imagenet": {"state_dict_ema": {**theirs, "linear.weight": torch.zeros(1000, net.specs[-1].channels)}},
        "own": values,
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        again = small(variant=variant, weights=tmp_path / f"{name}.pth").state_dict()
        assert all(torch.equal(again[key], value) for key, value in values.items()), name


def stretched(position: np.ndarray, length: int) -> np.ndarray:
    """(C, P) -> (C, length): linear between the centres of cells, constant beyond the outermost."""
    places = (np.arange(length) + 0.5) * position.shape[1] / length - 0.5
    return np.stack([np.interp(places, np.arange(position.shape[1]), row) for row in position])


def normed(x: np.ndarray, layer: ConvNormAct) -> np.ndarray:
    """A 1x1 without bias on (C, ...), and its batch norm's formula."""
    values = {key: value.numpy() for key, value in layer.state_dict().items()}
    out = np.tensordot(values["conv.weight"][:, :, 0, 0], x, 1)
    names = ("norm.running_mean", "norm.running_var", "norm.weight", "norm.bias")
    mean, var, gain, shift = (values[name].reshape(-1, *[1] * (x.ndim - 1)) for name in names)
    return (out - mean) / np.sqrt(var + 1e-5) * gain + shift


def attended(x: np.ndarray, net: AxisAttention, heads: int) -> np.ndarray:
    """One image's queries, keys and values (4 * inner, N) -> (2 * inner, N), place by place and head by head."""
    inner, length = x.shape[0] // 4, x.shape[1]
    query = x[:inner] + stretched(net.query_position.detach().numpy()[0], length)
    key = x[inner : 2 * inner] + stretched(net.key_position.detach().numpy()[0], length)
    value = x[2 * inner :]
    narrow, wide = inner // heads, 2 * inner // heads
    mixed = np.zeros_like(value)
    for head in range(heads):
        mine = slice(head * narrow, (head + 1) * narrow)
        for i in range(length):
            scores = np.array([query[mine, i] @ key[mine, j] / np.sqrt(narrow) for j in range(length)])
            weights = np.exp(scores) / np.exp(scores).sum()
            for c in range(head * wide, (head + 1) * wide):
                mixed[c, i] = sum(weights[j] * value[c, j] for j in range(length))
    return normed(np.clip(mixed, 0, 6), net.encode)


@pytest.mark.parametrize("length", [1, 5, 16, 21])
def test_axis_attention_by_loops(randomised: Any, length: int) -> None:
    net = randomised(AxisAttention(heads=3, key_dim=4).double())
    x = torch.randn(2, 48, length, dtype=torch.float64)
    with torch.no_grad():
        outputs = net(x)
    assert outputs.shape == (2, 24, length, 1)
    for image, got in zip(x.numpy(), outputs.numpy()):
        np.testing.assert_allclose(got[..., 0], attended(image, net, 3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(5, 7), (16, 3), (1, 1)])
def test_squeezed_attention_by_loops(randomised: Any, size: tuple[int, int]) -> None:
    net = randomised(SeaAttention(6, heads=2, key_dim=4).double())
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    with torch.no_grad():
        outputs = net(x).numpy()
        details = net.detail(net.qkv(x)).numpy()
    for image, detail, got in zip(x.numpy(), details, outputs):
        query, key, value = (normed(image, part) for part in (net.qkv.query, net.qkv.key, net.qkv.value))
        qkv = np.concatenate([query, key, value])
        rows = attended(qkv.mean(2), net.rows, 2)[:, :, None]
        columns = attended(qkv.mean(1), net.columns, 2)[:, None, :]
        gate = normed(np.clip(value + rows + columns, 0, 6), net.gate)
        np.testing.assert_allclose(got, np.clip(gate / 6 + 0.5, 0, 1) * detail, rtol=1e-9, atol=1e-9)


def test_details_see_their_neighbours_and_the_gate_the_whole_axes(randomised: Any) -> None:
    # A place in neither the row nor the column of the one that changes hears of it from these.
    net = randomised(SeaAttention(6, heads=2, key_dim=4).double())
    x = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    other = x.clone()
    other[:, :, 0, 0] += 1
    with torch.no_grad():
        changed = (net.detail(net.qkv(other)) != net.detail(net.qkv(x))).any(1)[0]
        assert changed[:2, :2].all() and changed.sum() == 4
        assert (net(other) - net(x)).abs().amax(1)[0].min() > 0


def test_training_starts_with_half_of_every_detail() -> None:
    net = SeaAttention(6, heads=2, key_dim=4).eval()
    x = torch.randn(1, 6, 4, 5)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.detail(net.qkv(x)) / 2)


def test_branches_are_left_out_in_training_alone(randomised: Any) -> None:
    block = randomised(SeaBlock(8, 2, 4, 16, drop_path=0.5))
    torch.manual_seed(0)
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        assert (block.eval()(x) != x).flatten(1).any(1).all()
        untouched = (block.train()(x) == x).flatten(1).all(1)
    assert 4 < untouched.sum() < 32  # one of four images, for both branches


def test_the_chance_of_leaving_out_grows_within_a_stage() -> None:
    with torch.device("meta"):
        stage = SeaFormer("base", drop_path=0.3).stages[4]
    assert isinstance(stage, Stage)
    rates = [part.drop_prob for part in stage.modules() if isinstance(part, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("variant", ["tiny", "large"])
def test_fused_equals_unfused(randomised: Any, variant: str) -> None:
    net = randomised(small(variant=variant, out_strides=(4, 8, 16, 32, 64))).double()
    fused = inference_model(net)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())
    x = torch.randn(2, 3, 97, 65, dtype=torch.float64)
    with torch.no_grad():
        for expected, got in zip(net(x), fused(x), strict=True):
            assert expected.std() > 0.01  # or anything would be equal
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_fused_projections_are_one_convolution(randomised: Any) -> None:
    net = randomised(Projections(6, 4))
    fused = net.fold()
    assert type(fused) is nn.Conv2d and fused.weight.shape == (16, 6, 1, 1) and not fused.training
    x = torch.randn(2, 6, 3, 5)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(97, 130), (128, 64)])
def test_exported_it_is_the_same(randomised: Any, size: tuple[int, int], tmp_path: Path) -> None:
    net = inference_model(randomised(small(depth=0.5)))
    path = str(tmp_path / "net.onnx")
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        sample = torch.randn(2, 3, *size)
        torch.onnx.export(net, (sample,), path, dynamo=True, opset_version=18, dynamic_shapes=(batch,), verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for count in (1, 3):
            x = torch.randn(count, 3, *size)
            outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            for got, want in zip(outputs, net(x), strict=True):
                torch.testing.assert_close(torch.tensor(got), want, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(randomised: Any) -> None:
    net = randomised(small(variant="large", drop_path=0.0)).train()
    sum(feature.square().mean() for feature in net(torch.randn(2, 3, 97, 130))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32, 64), (8, 16, 32), (8, 64), (4,)])
def test_maps_are_as_declared(variant: str, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes only
        net = SeaFormer(variant, out_strides=strides)
        maps = net(torch.zeros(2, 3, 128, 192))
    assert tuple(spec.stride for spec in net.specs) == strides
    assert net.divisor == strides[-1]
    for feature, spec in zip(maps, net.specs, strict=True):
        assert feature.shape == (2, spec.channels, 128 // spec.stride, 192 // spec.stride)


def test_what_it_gives_unasked_is_what_the_published_head_fuses() -> None:
    with torch.device("meta"):
        specs = {variant: SeaFormer(variant).specs for variant in VARIANTS}
    assert specs == {
        "tiny": (FeatureSpec(32, 8), FeatureSpec(128, 32), FeatureSpec(160, 64)),
        "small": (FeatureSpec(48, 8), FeatureSpec(160, 32), FeatureSpec(192, 64)),
        "base": (FeatureSpec(64, 8), FeatureSpec(192, 32), FeatureSpec(256, 64)),
        "large": (FeatureSpec(128, 8), FeatureSpec(192, 16), FeatureSpec(256, 32), FeatureSpec(320, 64)),
    }


def test_an_odd_size_rounds_up() -> None:
    # Every halving gives the ceiling: 97, 49, 25, 13, 7, 4, 2 and 65, 33, 17, 9, 5, 3, 2; 1 stays 1.
    net = small(out_strides=(4, 8, 16, 32, 64)).eval()
    with torch.no_grad():
        sizes = [tuple(feature.shape[2:]) for feature in net(torch.randn(1, 3, 97, 65))]
        assert sizes == [(25, 17), (13, 9), (7, 5), (4, 3), (2, 2)]
        assert [tuple(feature.shape[2:]) for feature in net(torch.randn(1, 3, 1, 1))] == [(1, 1)] * 5


def test_stages_behind_the_last_stride_are_not_built() -> None:
    with torch.device("meta"):
        assert len(SeaFormer(out_strides=(8, 16)).stages) == 3


def blocks_of(net: SeaFormer) -> list[tuple[int, int]]:
    stages = [stage for stage in net.stages if isinstance(stage, Stage)]
    return [(len(list(stage.bottlenecks)), len(list(stage.blocks))) for stage in stages]


def kernels_of(net: SeaFormer) -> list[int]:
    parts = [part for part in net.modules() if isinstance(part, InvertedBottleneck)]
    convs = [conv for part in parts for conv in part.modules() if isinstance(conv, nn.Conv2d)]
    return [conv.kernel_size[0] for conv in convs if conv.groups > 1]


def test_width_depth_and_kernel_by_hand() -> None:
    with torch.device("meta"):
        assert blocks_of(SeaFormer("small")) == [(2, 0), (2, 0), (2, 0), (1, 3), (1, 3)]
        assert blocks_of(SeaFormer("large")) == [(2, 0), (2, 0), (2, 3), (1, 3), (1, 3)]
        assert blocks_of(SeaFormer("base", depth=0.5)) == [(1, 0), (1, 0), (1, 0), (1, 2), (1, 2)]
        assert blocks_of(SeaFormer("base", depth=2.0)) == [(4, 0), (4, 0), (4, 0), (2, 8), (2, 8)]
        # 48, 160, 192 by 0.55: 26.4, 88, 105.6 to the nearest multiple of 8; 6 heads: 3.3.
        narrow = SeaFormer("small", width=0.55)
        assert narrow.specs == (FeatureSpec(24, 8), FeatureSpec(88, 32), FeatureSpec(104, 64))
        assert {part.heads for part in narrow.modules() if isinstance(part, AxisAttention)} == {3}
        assert kernels_of(SeaFormer("tiny")) == [3, 3, 3, 5, 5, 3, 3, 5, 3]
        assert kernels_of(SeaFormer("tiny", kernel_size=7)) == [7] * 9


def test_frozen_parts_get_no_gradient() -> None:
    net = small(frozen=("stem", "norms"))
    net.train()
    assert not any(parameter.requires_grad for parameter in net.stem.parameters())
    assert not any(part.training for part in net.modules() if isinstance(part, nn.BatchNorm2d))
    assert any(parameter.requires_grad for parameter in net.stages.parameters())


def test_half_precision_by_autocast_is_close(randomised: Any) -> None:
    net = randomised(small())
    x: Tensor = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x)
    for want, got in zip(exact, rough, strict=True):
        assert (got.float() - want).abs().max() < 0.1 * want.abs().max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "huge"}, r"variant: got 'huge', allowed \('tiny', 'small', 'base', 'large'\)"),
        ({"width": 0}, r"width: got 0, allowed"),
        ({"depth": -1.0}, r"depth: got -1\.0, allowed"),
        ({"kernel_size": 4}, r"kernel_size: got 4, allowed an odd"),
        ({"out_strides": (2, 8)}, r"out_strides: got \(2, 8\), allowed .*\(4, 8, 16, 32, 64\)"),
        ({"out_strides": ()}, r"out_strides: got \(\), allowed"),
        ({"frozen": ("neck",)}, r"frozen: got 'neck'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeaFormer(**arguments)
