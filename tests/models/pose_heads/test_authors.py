"""The head gives the outputs, losses and gradients that were recorded from the authors' code, with their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from efftasks.models.published.authors import AUTHORS
from efftasks.models.published.rules import convert

OUTPUTS = {"": "", "_0": "_layer0", "_1": "_layer1", "_pre": "_first", "_enc_0": "_select"}
OUTPUTS |= {"_dn_0": "_dn0", "_dn_1": "_dn1", "_dn_2": "_dn2", "_dn_pre": "_dn_first"}
TERMS = {"loss_vfl": "loss_cls", "loss_keypoints": "loss_kpt", "loss_oks": "loss_oks"}


class Given(torch.nn.Module):
    """Denoising queries that were made elsewhere."""

    def __init__(self, queries: Any) -> None:
        super().__init__()
        self.queries = queries

    def forward(self, targets: Any, num_others: int) -> Any:
        return self.queries


def test_same_answers_on_maps_that_are_not_square(authors: Any, reference: Any) -> None:
    recorded, head = reference.record(), reference.as_authors(authors).eval()
    with torch.no_grad():
        raw = head(reference.features(96, 160, 0))
        detections = head.decode(raw)
    torch.testing.assert_close(raw.logits, torch.tensor(recorded["logits"]), atol=2e-5, rtol=0)
    torch.testing.assert_close(raw.poses, torch.tensor(recorded["poses"]), atol=2e-5, rtol=0)
    # Their postprocessing: the best pairs of query and class, in pixels.
    scores, index = torch.tensor(recorded["logits"]).sigmoid().flatten(1).topk(reference.QUERIES * 2)
    poses = torch.stack([image[i // 2] for image, i in zip(torch.tensor(recorded["poses"]), index)])
    torch.testing.assert_close(detections.scores, scores, atol=1e-5, rtol=0)
    assert torch.equal(detections.labels, index % 2)
    expected = poses * torch.tensor([160.0, 96.0])
    torch.testing.assert_close(detections.keypoints[..., :2], expected, atol=5e-3, rtol=0)


def test_same_maps_of_the_encoder(authors: Any, reference: Any) -> None:
    recorded = reference.record()["encoder"]
    neck, random = reference.encoder().eval(), np.random.default_rng(3)
    theirs = {
        name: torch.from_numpy(np.asarray(authors.fill(name, tuple(shape)), dtype=np.float32))
        for name, shape in recorded["tensors"].items()
        if not name.endswith("num_batches_tracked")
    }
    conversion = convert(theirs, {f"neck.{name}": tensor for name, tensor in neck.state_dict().items()}, AUTHORS)
    assert conversion.complete, conversion.listing()
    neck.load_state_dict({name.removeprefix("neck."): tensor for name, tensor in conversion.state.items()})
    shapes = [(1, 512, 6, 10), (1, 1024, 3, 5)]
    with torch.no_grad():
        maps = neck([torch.from_numpy(random.standard_normal(shape, dtype=np.float32)) for shape in shapes])
    for found_map, expected in zip(maps, recorded["maps"], strict=True):
        torch.testing.assert_close(found_map[0, ::8], torch.tensor(expected), atol=1e-4, rtol=0)


def test_same_losses_and_gradients(authors: Any, reference: Any) -> None:
    recorded, head = reference.record(), reference.as_authors(authors).train()
    queries, targets = reference.training_inputs()
    tokens = head.denoising
    head.denoising = Given(queries)
    maps = [x.requires_grad_() for x in reference.features(128, 128, 2)]
    losses = head.loss(maps, targets)

    expected = {
        ours + OUTPUTS[suffix]: recorded["losses"][theirs + suffix]
        for theirs, ours in TERMS.items()
        for suffix in OUTPUTS
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        assert float(losses[name].detach()) == pytest.approx(value, rel=1e-4), name

    torch.stack(list(losses.values())).sum().backward()
    norms = {name: float(p.grad.norm()) for name, p in head.named_parameters() if p.grad is not None}
    expected_norms = {}
    for name, norm in recorded["gradients"].items():
        expected_norms[reference.own_name(name)] = norm
    assert set(norms) == set(expected_norms)
    for name, norm in expected_norms.items():
        assert norms[name] == pytest.approx(norm, rel=2e-3, abs=1e-4), name
    for level, norm in zip(maps, recorded["feature_gradients"], strict=True):
        assert float(level.grad.norm()) == pytest.approx(norm, rel=2e-3)
    assert tokens is not None


def test_same_pairs(authors: Any, reference: Any) -> None:
    recorded, head = reference.record(), reference.as_authors(authors).train()
    queries, targets = reference.training_inputs()
    head.denoising = Given(queries)
    with torch.no_grad():
        ground_truth = head._targets(targets, torch.full((4,), 128.0))
        raw = head(reference.features(128, 128, 2), ground_truth)
    (matching,) = head.criterion.matcher([type(raw.training.first)(raw.logits, raw.poses)], ground_truth)
    pairs = set(zip(matching.image.tolist(), matching.query.tolist(), matching.target.tolist()))
    theirs = enumerate(recorded["matching"])
    assert pairs == {(i, q, t) for i, (queries, objects) in theirs for q, t in zip(queries, objects)}
