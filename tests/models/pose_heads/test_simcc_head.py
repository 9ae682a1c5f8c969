import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.models.pose_heads.simcc_head import GatedAttention, SimCCHead
from efftasks.structures.features import FeatureSpec

SPECS = (FeatureSpec(8, 8), FeatureSpec(12, 16))
SIZE = (64, 48)


def make_head(count: int = 5, **kwargs) -> SimCCHead:
    torch.manual_seed(0)
    return SimCCHead(SPECS, (0.05,) * count, SIZE, channels=32, attention_channels=16, **kwargs)


def features(batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, SIZE[0] // s, SIZE[1] // s, generator=generator) for c, s in SPECS]


def keypoints(batch: int = 2, count: int = 5, visibility: float = 2.0) -> torch.Tensor:
    places = torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([48.0, 64.0])
    return torch.cat([places, torch.full((batch, count, 1), visibility)], dim=-1)


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


def scaled(row: np.ndarray) -> np.ndarray:
    """mmpose's ScaleNorm without its gain: the row over its length times the root of its number of entries."""
    return row / max(np.linalg.norm(row) * len(row) ** -0.5, 1e-5)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def test_gated_attention_against_a_loop():
    torch.manual_seed(0)
    unit = GatedAttention(6, attention_channels=4)
    nn.init.normal_(unit.shortcut)
    x = torch.randn(2, 3, 6)
    actual = unit(x).detach().numpy()
    weights = {name: value.detach().numpy() for name, value in unit.named_parameters()}
    for b in range(2):
        rows = x[b].numpy()
        projected = [silu(weights["project.weight"] @ scaled(row)) for row in rows]
        gates, values, bases = ([row[part] for row in projected] for part in (slice(12), slice(12, 24), slice(24, 28)))
        queries = [base * weights["scale"][0] + weights["shift"][0] for base in bases]
        keys = [base * weights["scale"][1] + weights["shift"][1] for base in bases]
        for i in range(3):
            gathered = np.zeros(12)
            for j in range(3):
                gathered += max(0.0, queries[i] @ keys[j] / math.sqrt(4)) ** 2 * values[j]
            expected = rows[i] * weights["shortcut"] + weights["merge.weight"] @ (gates[i] * gathered)
            np.testing.assert_allclose(actual[b, i], expected, atol=1e-5)


def test_heat_maps_against_the_layers_written_out():
    head = make_head().eval()
    raw = head(features())
    assert raw.x.shape == (2, 5, 96) and raw.y.shape == (2, 5, 128)
    maps = nn.functional.conv2d(features()[1], head.conv.weight, head.conv.bias, padding=3)  # the coarsest alone
    assert maps.shape[2:] == (4, 3)
    rows = np.stack([scaled(row) for row in maps.detach().numpy().reshape(10, 12)])
    attended = head.attend(torch.from_numpy(rows).float().reshape(2, 5, 12) @ head.project.weight.T)
    assert_close(raw.y, attended @ head.classify_y.weight.T, atol=1e-5, rtol=1e-4)


def test_no_bin_is_preferred_at_first():
    assert make_head().decode(make_head()(features()))[..., 2].max() < 0.05


def test_learns_random_places_of_random_features():
    head, ground_truth = make_head().train(), keypoints()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    start = total(head.loss(features(), ground_truth))
    for _ in range(150):
        optimizer.zero_grad()
        loss = total(head.loss(features(), ground_truth))
        loss.backward()
        optimizer.step()
    detections = head.decode(head(features()))
    assert loss < 0.2 * start
    assert (detections[..., :2] - ground_truth[..., :2]).abs().max() <= 0.5
    assert detections[..., 2].min() > 0.5


@pytest.mark.parametrize("visibility", [0.0, 2.0])
def test_every_parameter_has_a_gradient(visibility):
    """With keypoints and without any."""
    head = make_head().train()
    losses = head.loss(features(), keypoints(visibility=visibility))
    assert set(losses) == {"loss_x", "loss_y"}
    total(losses).backward()
    assert bool(total(losses) > 0) == bool(visibility)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_black_features_give_finite_gradients():
    head = make_head().train()
    head.load_state_dict({**head.state_dict(), "conv.bias": torch.zeros(5)})
    total(head.loss([torch.zeros_like(x) for x in features()], keypoints())).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_keypoints_out_of_the_crop_teach_nothing():
    head = make_head().eval()
    ground_truth = keypoints()
    before = head.loss(features(), ground_truth)
    outside = torch.cat([ground_truth, torch.tensor([[[-3.0, 5.0, 2.0]], [[5.0, 64.0, 2.0]]])], dim=1)
    more = make_head(6).eval()
    more.load_state_dict({k: v for k, v in head.state_dict().items() if "conv" not in k}, strict=False)
    nn.init.zeros_(more.conv.weight)
    raw, wider = head(features()), more(features())
    joined = type(raw)(torch.cat([raw.x, wider.x[:, 5:]], dim=1), torch.cat([raw.y, wider.y[:, 5:]], dim=1))
    assert_close(more.loss_by_feat(joined, outside), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(sigmas=None), "sigmas: got None"),
        (dict(input_size=None), "input_size: got None"),
        (dict(input_size=(64, 40)), r"input_size: got \(64, 40\), allowed is \(height, width\), multiples of 16"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        SimCCHead(SPECS, **{"sigmas": (0.05,), "input_size": SIZE, **wrong})
