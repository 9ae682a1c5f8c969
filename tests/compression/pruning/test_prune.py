"""The step of a config: every family of networks, targets, and what it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from efftasks.compression.folding import inference_model
from efftasks.compression.low_rank import LowRank
from efftasks.compression.pruning.prune import Prune
from efftasks.compression.pruning.record import tensors_of
from efftasks.compression.pruning.targets import count_flops, count_parameters
from efftasks.compression.transform import DecideContext
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph
from efftasks.models.backbones.base import probe
from efftasks.structures.errors import UserError

NAMES = sorted(path.stem for path in (Path(__file__).parents[3] / "configs" / "_base_" / "models").glob("*.py"))
SLOW = ("lraspp", "dfine", "deim", "rtdetrv2", "detrpose", "o2o_all", "dfine_masks")
UNDECLARED = ("bisenetv2", "ddrnet23_slim", "fastscnn", "pidnet_s", "stdc1")  # mmseg's, without specs
SIZE = (16, 16)
TRAINED = DecideContext(has_weights=True, image_size=SIZE)


def squared(model: nn.Module, count: int) -> Iterator[torch.Tensor]:
    for seed in range(count):
        images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
        yield torch.stack([tensor.square().mean() for tensor in tensors_of(model(images))]).sum()


def pruned(model: nn.Module, context: DecideContext, **arguments: Any) -> nn.Module:
    """The plan goes through JSON and is replayed without weights, which are loaded then, as from a checkpoint."""
    plan = json.loads(json.dumps(Prune(**arguments).decide(model, context)))
    small = Prune.apply(copy.deepcopy(model), plan)
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other = Prune.apply(other, plan)
    other.load_state_dict(small.state_dict())
    return other


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in NAMES])
def test_every_family(name: str, families: ModuleType) -> None:
    """It is smaller, its specs are true, it folds to the same, it learns, and other images give other answers."""
    model = families.build_family(name)
    families.randomize_norms(model)
    side = families.side_of(name)
    context = DecideContext(has_weights=True, image_size=(side, side))
    small: Any = pruned(model, context, ratio=0.4, scheme="isomorphic")
    assert count_flops(small, (side, side)) < 0.95 * count_flops(model, (side, side))
    assert count_parameters(small, ()) < 0.97 * count_parameters(model, ())
    with torch.no_grad():
        images = families.images(name)
        raw = [tensor for tensor in tensors_of(small.eval()(images, mode="tensor")) if tensor.is_floating_point()]
        folded = tensors_of(inference_model(small)(images, mode="tensor"))
        dense = tensors_of(model.eval()(images, mode="tensor"))
        assert all(tensor.isfinite().all() for tensor in raw)
        assert [tensor.shape for tensor in raw] == [t.shape for t in dense if t.is_floating_point()]
        for one, other in zip(raw, (t for t in folded if t.is_floating_point()), strict=True):
            assert (one - other).norm() <= 1e-2 * other.norm()
    loss = families.total_loss(name, small)
    loss.backward()
    assert loss.isfinite()
    wide = dict(model.named_parameters())
    cut = {name: p for name, p in small.named_parameters() if p.shape != wide[name].shape}
    assert cut and [name for name, p in cut.items() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SLOW and n not in UNDECLARED])
def test_specs_are_those_of_the_maps(name: str, families: ModuleType) -> None:
    model = pruned(families.build_family(name), DecideContext(image_size=(96, 96)), ratio=0.5)
    maps: Any = probe(model.backbone)  # type: ignore[arg-type]
    assert [spec.channels for spec in model.backbone.specs] == [m.shape[1] for m in maps]  # type: ignore[union-attr]
    with torch.no_grad():
        features = model.eval().stages(families.images(name)).features  # type: ignore[operator]
    assert [spec.channels for spec in model.feature_specs] == [m.shape[1] for m in features]  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", ["uniform", "global", "isomorphic"])
@pytest.mark.parametrize("target", [dict(flops=0.5), dict(parameters=0.6)])
def test_a_target_is_met_and_hardly_more(scheme: str, target: dict[str, float], families: ModuleType) -> None:
    model = families.build_family("fpnlite")
    context = DecideContext(has_weights=True, image_size=(96, 96))
    small = pruned(model, context, scheme=scheme, **target)
    ((kind, share),) = target.items()
    unused = {name for name, _ in model.named_modules() if name.startswith("auxiliary_head.")}
    sizes = [count_flops(m, (96, 96)) if kind == "flops" else count_parameters(m, unused) for m in (small, model)]
    assert share - 0.06 <= sizes[0] / sizes[1] <= share


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deimv2_lite", "fpnlite", "o2o_keypoints", "simcc"])
def test_the_exported_file_says_the_same(name: str, families: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = families.build_family(name)
    families.randomize_norms(model)
    side = families.side_of(name)
    small: Any = inference_model(pruned(model, DecideContext(True, (side, side)), ratio=0.4))
    images = families.images(name, count=1)
    path = write_graph(Graph(small), images, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = [tensor for tensor in small.infer(images) if tensor is not None]
    for one, other in zip(answers, expected, strict=True):
        if other.is_floating_point():
            torch.testing.assert_close(torch.from_numpy(one), other, atol=1e-3, rtol=1e-3)
        else:
            assert (torch.from_numpy(one) == other).float().mean() > 0.99


def test_channels_are_multiples_and_the_kept_ones_are_the_largest(networks: ModuleType) -> None:
    model = networks.Residual()
    with torch.no_grad():
        model.inner.weight.copy_(torch.arange(16.0)[:, None, None, None].expand_as(model.inner.weight))
        model.outer.weight.zero_()
    plan = Prune(ratio=0.5, layers=["inner"]).decide(model, TRAINED)
    assert plan == {"axes": {"inner": {"out": 0}, "outer": {"in": 0}}, "kept": [[8, 9, 10, 11, 12, 13, 14, 15]]}
    plan = Prune(ratio=0.3, layers=["inner"], round_to=4).decide(model, TRAINED)
    assert plan["kept"] == [[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]]  # 16 * 0.7 = 11.2, and 12 is next


def test_without_weights_shapes_decide(networks: ModuleType) -> None:
    plans = []
    for seed in range(2):
        torch.manual_seed(seed)
        step = Prune(ratio=0.5, importance="taylor", scheme="global")  # needs no batches then
        plans.append(step.decide(networks.Residual(), DecideContext(image_size=SIZE)))
    assert plans[0] == plans[1] and plans[0]["kept"] == [[0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("has_weights", [False, True])
def test_that_weights_are_missing_is_a_warning(
    has_weights: bool, networks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    logger = SimpleNamespace(warning=lines.append, info=lambda line: None)
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda: logger)
    Prune(ratio=0.5).decide(networks.Residual(), DecideContext(has_weights, SIZE))
    assert lines == [] if has_weights else "no trained weights" in lines[0] and "set load_from" in lines[0]


def test_taylor_decides_from_batches_and_leaves_the_model(networks: ModuleType) -> None:
    model = networks.Residual().train()
    with torch.no_grad():
        model.outer.weight[:, :8] *= 1e-3  # large weights that the loss hardly needs
        model.inner.weight[:8] *= 50
    before = copy.deepcopy(model.state_dict())
    context = DecideContext(True, SIZE, squared)
    plan = Prune(ratio=0.5, importance="taylor", batches=2, layers=["inner"]).decide(model, context)
    assert plan["kept"] == [[8, 9, 10, 11, 12, 13, 14, 15]]
    assert Prune(ratio=0.5, layers=["inner"]).decide(model, context)["kept"] == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and model.training


def test_statistics_are_those_of_batches(networks: ModuleType) -> None:
    model = networks.Chain().eval()
    model.norm.running_mean.fill_(100.0)
    context = DecideContext(True, SIZE, squared)
    Prune(ratio=0.5, recalibrate=3).refine(model, context)
    batches = [torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    with torch.no_grad():
        maps = [model.first(images) for images in batches]
    torch.testing.assert_close(model.norm.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(model.norm.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))
    assert not model.training and model.norm.momentum == 0.1
    untouched = copy.deepcopy(model.norm.running_mean)
    Prune(ratio=0.5, recalibrate=3).refine(model, DecideContext(False, SIZE, squared))
    assert torch.equal(model.norm.running_mean, untouched)


def test_frozen_norms_keep_their_statistics_with_a_warning(
    networks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(MMLogger, "get_current_instance", lambda: SimpleNamespace(warning=warnings.append))
    model = networks.Chain()
    Prune(ratio=0.5, recalibrate=1).refine(model, DecideContext(True, SIZE, squared))
    assert warnings == []
    monkeypatch.setattr(model.norm, "train", lambda mode=True: nn.Module.train(model.norm, False))
    before = model.norm.running_mean.clone()
    Prune(ratio=0.5, recalibrate=1).refine(model.eval(), DecideContext(True, SIZE, squared))
    assert torch.equal(model.norm.running_mean, before)
    assert len(warnings) == 1 and "1 of 1 batch norms are frozen" in warnings[0]


def width_latency(model: Any, backend: str) -> float:
    assert backend == "clock"
    return 2.0 + model.inner.out_channels  # milliseconds: 18 for the dense model


@pytest.mark.parametrize(("latency", "width"), [(dict(factor=0.7), 8), (dict(ms=15.0), 12), (dict(ms=12.5), 8)])
def test_a_latency_is_met(networks: ModuleType, latency: dict[str, float], width: int) -> None:
    context = DecideContext(True, SIZE, latency=width_latency)
    step = Prune(latency=dict(backend="clock", **latency), round_to=4, layers=["inner"])
    small: Any = step.apply(networks.Residual(), step.decide(networks.Residual(), context))
    assert small.inner.out_channels == width


def test_a_target_that_is_met_already_removes_nothing(networks: ModuleType) -> None:
    context = DecideContext(True, SIZE, latency=width_latency)
    model = networks.Residual()
    step = Prune(latency=dict(backend="clock", ms=30.0))  # the model takes 18
    plan = json.loads(json.dumps(step.decide(model, context)))
    assert plan == {"axes": {}, "kept": []}
    small = step.apply(copy.deepcopy(model), plan)
    images = torch.rand(1, 3, *SIZE)
    assert torch.equal(small(images), model(images))


def test_steps_go_on_where_the_last_ended(networks: ModuleType) -> None:
    model = networks.Residual()
    first = Prune(ratio=0.25, round_to=4).decide(model, TRAINED)
    once: Any = Prune.apply(model, first)
    assert (once.stem.out_channels, once.inner.out_channels) == (8, 12)
    twice: Any = Prune.apply(once, Prune(ratio=0.34, round_to=4).decide(once, TRAINED))
    assert (twice.stem.out_channels, twice.inner.out_channels) == (4, 8)
    assert twice(torch.rand(1, 3, *SIZE)).shape == (1, 2, *SIZE)


def test_steps_of_other_kinds_compose(families: ModuleType) -> None:
    """Low rank, then fewer channels, among them those between its pairs; and the other way round."""
    context = DecideContext(has_weights=True, image_size=(96, 96))
    low, prune = LowRank(["neck.*"], ratio=0.7), Prune(ratio=0.4)
    for steps in ([low, prune], [prune, low]):
        model = families.build_family("deimv2_lite")
        sizes = [count_flops(model, (96, 96))]
        for step in steps:
            model = step.apply(model, step.decide(model, context))  # type: ignore[attr-defined]
            sizes.append(count_flops(model, (96, 96)))
        assert sizes[0] > sizes[1] > sizes[2]
        with torch.no_grad():
            images = families.images("deimv2_lite")
            answers = [tensors_of(m(images, mode="tensor")) for m in (model.eval(), inference_model(model))]
            for one, other in zip(*answers, strict=True):
                assert (one - other).norm() <= 1e-2 * other.norm()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "got no target"),
        (dict(ratio=0.5, flops=0.5), "got ratio, flops, expected one of"),
        (dict(ratio=1.0), "ratio: got 1.0"),
        (dict(flops=0), "flops: got 0"),
        (dict(parameters=-1), "parameters: got -1"),
        (dict(ratio=0.5, importance="luck"), "importance: got 'luck', allowed are magnitude"),
        (dict(ratio=0.5, scheme="all"), "scheme: got 'all', allowed are uniform"),
        (dict(ratio=0.5, round_to=0), "round_to: got 0"),
        (dict(ratio=0.5, layers="backbone"), "lists of patterns"),
        (dict(latency=dict(backend="onnxruntime")), "either ms"),
        (dict(latency=dict(backend="onnxruntime", factor=1.5)), "either ms"),
        (dict(latency=dict(backend="onnxruntime", factor=0.5, ms=3)), "either ms"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Prune(**arguments)


@pytest.mark.parametrize(
    ("arguments", "context", "words"),
    [
        (dict(ratio=0.5), DecideContext(True), "no image_size"),
        (dict(ratio=0.5, importance="taylor"), TRAINED, "importance='taylor' needs batches of the training data"),
        (dict(latency=dict(backend="x", ms=1)), TRAINED, "cannot be exported and timed here"),
        (dict(ratio=0.5, layers=["neck.*"]), TRAINED, r"layers: got 'neck\.\*', which names no convolution"),
        (dict(ratio=0.5, ignore=["stm"]), TRAINED, "ignore: got 'stm', which names no"),
        (dict(ratio=0.5, layers=["last"]), TRAINED, "no layer of the model may lose channels .* last: its maps are"),
        (dict(ratio=0.5, ignore=["stem", "inner"]), TRAINED, "no layer of the model may lose channels"),
        (dict(ratio=0.05), TRAINED, "a ratio of 0.05 removes nothing"),
        (dict(flops=0.01), TRAINED, "got FLOPs of .* with all channels removed that may be"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    networks: ModuleType, arguments: dict[str, Any], context: DecideContext, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        Prune(**arguments).decide(networks.Residual(), context)
    assert "\n" not in str(error.value)


def test_a_group_that_the_check_refuses_is_left_alone(
    networks: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def failing(model: nn.Module, groups: Any, size: Any) -> dict[str, str]:
        return {"stem": "it was seen"}

    monkeypatch.setattr("efftasks.compression.pruning.prune.failing_groups", failing)
    assert set(Prune(ratio=0.5).decide(networks.Residual(), TRAINED)["axes"]) == {"inner", "outer"}
    with pytest.raises(UserError, match="stem: it was seen"):
        Prune(ratio=0.5, layers=["stem", "outer"]).decide(networks.Residual(), TRAINED)
