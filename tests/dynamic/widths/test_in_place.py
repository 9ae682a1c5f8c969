"""In-place distillation: who learns from whom."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from torch import Tensor

from efftasks.structures.errors import UserError

TASKS = {"o2o": "detection", "fpnlite": "semantic segmentation"}
Built = Callable[..., Any]


def losses_of(network: Any, families: ModuleType, family: str) -> dict[str, Tensor]:
    losses: dict[str, Tensor] = network.train()(
        families.images(family), families.samples(family, TASKS[family]), mode="loss"
    )
    return losses


@pytest.mark.parametrize("family", ["fpnlite", pytest.param("o2o", marks=pytest.mark.slow)])
def test_every_width_learns_from_annotations_and_the_narrower_from_the_widest(
    families: ModuleType, slimmed: Built, family: str
) -> None:
    losses = losses_of(slimmed(family), families, family)
    own = {name for name in losses if not name.startswith("width")}
    assert own and not any("guide" in name for name in own)
    for width in ("width0.5.", "width0.25."):
        names = {name.removeprefix(width) for name in losses if name.startswith(width)}
        assert own < names and all(name.startswith("guide.loss_") for name in names - own)
        assert len(names - own) == (2 if family == "o2o" else 1)


def test_the_widest_alone_may_learn_from_annotations(families: ModuleType, slimmed: Built) -> None:
    losses = losses_of(slimmed("fpnlite", ground_truth="widest"), families, "fpnlite")
    assert {name for name in losses if name.startswith("width0.")} == {
        "width0.5.guide.loss_logits",
        "width0.25.guide.loss_logits",
    }


def test_the_loss_is_that_of_the_predictions(families: ModuleType, slimmed: Built) -> None:
    network, images = slimmed("fpnlite", widths=(1.0, 0.5)), families.images("fpnlite")  # evaluation: no dropout
    losses = network(images, families.samples("fpnlite", TASKS["fpnlite"]), mode="loss")
    predictions = []
    for width in network.choices():
        network.activate(width)
        predictions.append(network(images).movedim(1, -1).flatten(0, -2).log_softmax(-1))
    teacher, student = predictions
    expected = (teacher.exp() * (teacher - student)).sum(-1).mean()
    torch.testing.assert_close(losses["width0.5.guide.loss_logits"], expected)


def test_the_widest_does_not_learn_from_the_narrower(families: ModuleType, slimmed: Built) -> None:
    network = slimmed("fpnlite")
    losses = losses_of(network, families, "fpnlite")
    torch.stack([loss for name, loss in losses.items() if "guide" in name]).sum().backward()
    network.activate(0.5)
    half = dict(network.extract().named_parameters())
    touched = 0
    for name, parameter in network.named_parameters():
        if parameter.grad is None or name not in half or half[name].shape == parameter.shape:
            continue
        parameter.grad[tuple(slice(count) for count in half[name].shape)] = 0
        assert not parameter.grad.any(), name  # that of no other width
        touched += 1
    assert touched > 20
    widest = [p for name, p in network.named_parameters() if ".norm" in name and "narrower" not in name]
    assert widest and all(parameter.grad is None for parameter in widest)


def test_norms_see_a_batch_once(families: ModuleType, slimmed: Built) -> None:
    """Also those of the one-to-many branch, from which the narrower widths learn."""
    network = slimmed("o2o")
    losses_of(network, families, "o2o")
    counts = {name: int(x) for name, x in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}
    assert any("one_to_many" in name and "narrower.1" in name for name in counts)


def test_nothing_is_kept_between_batches(families: ModuleType, slimmed: Built) -> None:
    network = slimmed("fpnlite")
    losses_of(network, families, "fpnlite")
    assert network._networks.widest.guide.stages is None


def test_terms_with_weights_are_refused(slimmed: Built) -> None:
    term = dict(type="MapTerm", loss=dict(type="FeatureMSELoss"))
    with pytest.raises(UserError, match=r"Slimmable\.distillation\.maps: it has weights of its own"):
        slimmed("fpnlite", distillation=dict(maps=term))
