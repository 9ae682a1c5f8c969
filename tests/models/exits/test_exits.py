"""Detectors with an early exit: what each answer is, who decides, what learns, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from efftasks.apis import build, load_config, predict
from efftasks.checkpoints.files import load_matching
from efftasks.checkpoints.loading import fitting_weights
from efftasks.compression.folding import fold_model, inference_model, strip_model
from efftasks.compression.low_rank import LowRank
from efftasks.compression.pruning.prune import Prune
from efftasks.compression.quantization.quantize_aware import QuantizeAware
from efftasks.compression.transform import DecideContext
from efftasks.models.exits.base import padded
from efftasks.structures.errors import UserError
from efftasks.structures.instances import DetectionTensors
from efftasks.structures.protocols import ExitsEarly, MayExitEarly

KINDS = ("backbone", "boxes", "distributions")
CONFIG = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_exit"


def median_threshold(model: Any, images: Tensor) -> float:
    """A threshold that parts these images into halves."""
    with torch.no_grad():
        scores = model.exits_early.infer_early(images).score.sort().values
    middle = len(scores) // 2
    assert scores[middle] - scores[middle - 1] > 1e-5, "these images are too much alike"
    return float(scores[middle - 1 : middle + 1].mean())


def assert_equal(a: DetectionTensors, b: DetectionTensors) -> None:
    for name in ("boxes", "scores", "labels"):
        assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_threshold_chooses_between_the_early_and_the_static_answer(kind, made):
    model, images = made(kind), made.images(3)
    exits = model.exits_early
    assert (isinstance(model, MayExitEarly), isinstance(exits, ExitsEarly)) == (True, True)
    exits.exit_threshold = 0.0
    early = exits.infer_early(images)
    answer = model.infer(images)
    assert_equal(answer, early.detections)
    assert_close(answer.exit_score, early.score, rtol=0, atol=0)
    exits.exit_threshold = 1.01
    static = made.static(model, kind)
    assert static.exits_early is None
    late = model.infer(images)
    assert_equal(late, static.infer(images))
    assert not torch.equal(late.boxes, early.detections.boxes)
    assert [output.name for output in model.outputs(64, 64)] == [*DetectionTensors._fields[:3], "exit_score"]
    shapes = [tuple(part.shape[1:]) for part in late if part is not None]
    assert shapes == [output.shape[1:] for output in model.outputs(64, 64)]
    assert [tuple(part.shape[1:]) for part in early.carried] == [spec.shape[1:] for spec in exits.carried(64, 64)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_image_of_a_batch_gets_its_own_answer(kind, made):
    model, images = made(kind), made.images(6)
    exits = model.exits_early
    exits.exit_threshold = median_threshold(model, images)
    answer = model.infer(images)
    exited = answer.exit_score >= exits.exit_threshold
    assert exited.sum() == 3
    early = exits.infer_early(images)
    late = exits.infer_late(early.carried)
    for i in range(len(images)):
        mine = DetectionTensors._make(None if part is None else part[i : i + 1] for part in answer)
        other = early.detections if exited[i] else late
        assert_close(mine.boxes, other.boxes[i : i + 1], rtol=1e-4, atol=1e-3)
        alone = model.infer(images[i : i + 1])
        assert bool(alone.exit_score >= exits.exit_threshold) == bool(exited[i])
        assert_close(mine.scores, alone.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_part(kind, made):
    model = made(kind)
    made.loss(model).backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    gate = model.early_exit.gate
    assert all(bool(parameter.grad.any()) for parameter in gate.parameters())


@pytest.mark.parametrize(
    ("kind", "train_only", "learns"),
    [
        ("backbone", "exit", "early_exit."),
        ("backbone", "gate", "early_exit.gate."),
        ("boxes", "gate", "early_exit.gate."),
        ("distributions", "gate", "early_exit.gate."),
    ],
)
def test_what_does_not_learn_stays_as_it_is_to_the_last_bit(kind, train_only, learns, made):
    model = made(kind, train_only=train_only)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = made.loss(model)
    loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith(learns), name
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(learns) for name in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_the_exit_have_its_name(kind, made):
    model = made(kind).train()
    losses = model(made.images(2), made.samples(2), mode="loss")
    own = {name for name in losses if name.startswith("exit.")}
    assert "exit.loss_gate" in own
    assert ("exit.loss_cls_o2o" in own) == (kind == "backbone")
    assert {name for name in losses if not name.startswith("exit.")} == set(
        made.static(model, kind).train()(made.images(2), made.samples(2), mode="loss")
    )


def test_progress_reaches_the_head_of_the_exit(made):
    model = made("backbone")
    model.set_progress(0.7)
    assert model.early_exit.head.progress == 0.7


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_stripped_and_folded_it_answers_the_same_at_both_places(kind, made):
    model, images = made(kind), made.images(4)
    networks: list[Any] = [strip_model(model), fold_model(model), inference_model(model)]
    stripped, folded, both = networks
    for threshold in (0.0, 1.01):
        for network in (model, stripped, folded, both):
            network.exits_early.exit_threshold = threshold
        expected = model.infer(images)
        assert_equal(stripped.infer(images), expected)
        assert_close(stripped.infer(images).exit_score, expected.exit_score, rtol=0, atol=0)
        for network in (folded, both):
            assert_close(network.infer(images).scores, expected.scores, rtol=1e-3, atol=1e-4)
    if kind == "backbone":
        assert both.early_exit.head.one_to_many is None
        assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in both.modules())


def test_a_static_checkpoint_starts_a_model_with_an_exit(made):
    model = made("backbone")
    static = made.static(made("backbone"), "backbone")
    with torch.no_grad():
        for parameter in static.parameters():
            parameter.add_(0.01)
    weights = static.state_dict()
    state, report = fitting_weights(model, weights, "static.pth", start=True)
    assert all(name.startswith("early_exit.") for name in report.missing)
    load_matching(model, state)
    model.exits_early.exit_threshold = 1.01
    assert_equal(model.infer(made.images(2)), static.infer(made.images(2)))
    with pytest.raises(UserError, match=r"static\.pth is of another architecture.*early_exit"):
        fitting_weights(model, weights, "static.pth", start=False)


def test_another_gate_starts_from_a_trained_exit(made):
    trained, model = made("backbone"), made("backbone", gate=dict(type="ConfidenceGate"), train_only="exit")
    trained.early_exit.gate.calibrate(torch.tensor([0.2, 0.6]))
    with torch.no_grad():
        for parameter in trained.early_exit.parameters():
            parameter.add_(0.01)
    state, _ = fitting_weights(model, trained.state_dict(), "exit.pth", start=True)
    load_matching(model, state)
    for name, value in trained.early_exit.head.state_dict().items():
        assert torch.equal(model.early_exit.head.state_dict()[name], value), name
    with pytest.raises(UserError, match=r"unexpected .*early_exit\.gate"):
        fitting_weights(model, trained.state_dict(), "exit.pth", start=False)


def test_a_checkpoint_with_an_exit_is_no_static_one(made):
    model = made("backbone")
    with pytest.raises(UserError, match="unexpected"):
        fitting_weights(made.static(model, "backbone"), model.state_dict(), "exit.pth", start=True)


@torch.no_grad()
def test_predictions_say_whether_they_exited(made):
    model, images = made("backbone"), made.images(2)
    model.exits_early.exit_threshold = median_threshold(model, images)
    samples = model(images, made.samples(2), mode="predict")
    assert sorted(sample.exited for sample in samples) == [False, True]
    assert [sample.exited for sample in samples] == [
        sample.exit_score >= model.exits_early.exit_threshold for sample in samples
    ]


def test_predict_gives_the_score_and_the_decision():
    pictures = [np.zeros((48, 64, 3), np.uint8)]
    for name, decisions in ((CONFIG, {0.0: True, 1.01: False}), (CONFIG.removesuffix("_exit"), {0.0: None})):
        cfg = load_config(name, dict(classes=("a", "b", "c"), image_size=64))
        model: Any = build(cfg)
        model.cfg, model.dataset_meta = cfg, dict(classes=("a", "b", "c"))
        for threshold, exited in decisions.items():
            if model.exits_early is not None:
                model.exits_early.exit_threshold = threshold
            (prediction,) = predict(model.eval(), pictures)
            assert prediction.exited is exited
            assert (prediction.exit_score is None) == (exited is None)


def test_answers_of_few_points_are_padded_with_score_0():
    detections = DetectionTensors(torch.ones(2, 3, 4), torch.ones(2, 3), torch.ones(2, 3, dtype=torch.long))
    more, fewer = padded(detections, 5), padded(detections, 2)
    assert more.boxes.shape == (2, 5, 4)
    assert more.labels.dtype == torch.long
    assert more.scores.tolist() == [[1, 1, 1, 0, 0]] * 2
    assert fewer.scores.shape == (2, 2)
    assert fewer.masks is None


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("backbone", dict(after=32), r"after: got 32, allowed are strides of maps but the last: \[8, 16, 32\]"),
        ("backbone", dict(after=12), "after: got 12"),
        ("backbone", dict(levels=3), "levels: got 3, allowed are 1 to 2"),
        ("backbone", dict(threshold=-0.1), "threshold: got -0.1"),
        ("backbone", dict(train_only=True), "train_only: got True"),
        ("backbone", dict(train_only="gate", gate=dict(type="ConfidenceGate")), "ConfidenceGate, which learns nothing"),
        ("boxes", dict(layers=3), "layers: got 3, allowed are 1 to 2"),
        ("boxes", dict(train_only="exit"), "nothing else to train"),
    ],
)
def test_impossible_exits_are_refused(kind, changes, message, made):
    with pytest.raises(ValueError, match=message):
        made(kind, **changes)


def test_a_head_that_answers_something_else_is_refused(made):
    cfg = load_config(CONFIG, dict(classes=("a", "b", "c"))).model
    cfg.early_exit.head.num_classes = 2
    with pytest.raises(ValueError, match="num_classes: got 2, expected 3"):
        made.build(cfg)


@torch.no_grad()
def test_low_rank_layers_are_made_in_the_exit_too(made):
    model, images = made("backbone"), made.images(2)
    step = LowRank(layers=["backbone.*", "early_exit.neck.*"], ratio=0.5)
    before = sum(parameter.numel() for parameter in model.early_exit.parameters())
    smaller: Any = step.apply(model, step.decide(model, DecideContext())).eval()
    assert sum(parameter.numel() for parameter in smaller.early_exit.parameters()) < before
    for threshold in (0.0, 1.01):
        smaller.exits_early.exit_threshold = threshold
        assert bool(smaller.infer(images).scores.isfinite().all())


def test_what_does_not_follow_an_exit_refuses_it(made):
    model = made("backbone")
    for step in (Prune(ratio=0.5), QuantizeAware()):
        with pytest.raises(UserError, match="early exit, which it does not follow"):
            step.decide(model, DecideContext(image_size=(64, 64)))


def test_the_whole_network_can_end_before_its_decoder(made):
    model, images = made("backbone"), made.images(2)
    with torch.no_grad():
        _, scores = model.infer_undecoded(images)
        model.exits_early.exit_threshold = 2.0
        whole = model.infer(images)
    assert [output.name for output in model.undecoded(64, 64).outputs] == ["boxes", "scores"]
    best = scores.flatten(1).sort(descending=True).values[:, : whole.scores.shape[1]]
    torch.testing.assert_close(best, whole.scores)
