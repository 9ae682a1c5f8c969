"""Deformable sampling: by hand, against a loop, and its ways against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from efftasks.ops.sampling import sample_maps

POINTS = (3, 2)


def problem(seed: int = 0, wide: bool = False):
    g = torch.Generator().manual_seed(seed)
    sizes = ((5, 9), (3, 4)) if wide else ((6, 6), (3, 3))
    maps = [torch.randn(2, 8, h, w, generator=g) for h, w in sizes]
    locations = torch.rand(2, 4, sum(POINTS), 2, 7, generator=g) * 2.8 - 1.4  # some lie outside
    weights = torch.rand(2, 4, sum(POINTS), 7, generator=g).softmax(2)
    return maps, locations, weights


def bilinear(level: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """The value of a map (D, H, W) at a fraction of its size; zero outside."""
    height, width = level.shape[-2:]
    px, py = x * width - 0.5, y * height - 0.5
    left, top = int(torch.tensor(px).floor()), int(torch.tensor(py).floor())
    out = torch.zeros(level.shape[0])
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        r, c = top + i, left + j
        if 0 <= r < height and 0 <= c < width:
            out += level[:, r, c] * (1 - abs(px - c)) * (1 - abs(py - r))
    return out


@pytest.mark.parametrize("sampling", ["grid_sample", "gather"])
def test_bilinear_equals_a_loop_over_everything(sampling: str) -> None:
    maps, locations, weights = problem(wide=True)
    found = sample_maps(maps, locations, weights, POINTS, sampling)
    level_of = [0] * POINTS[0] + [1] * POINTS[1]
    expected = torch.zeros(2, 7, 8)
    for b in range(2):
        for q in range(7):
            for head in range(4):
                part = slice(2 * head, 2 * head + 2)
                for p, i in enumerate(level_of):
                    x, y = (0.5 * (locations[b, head, p, :, q] + 1)).tolist()
                    expected[b, q, part] += weights[b, head, p, q] * bilinear(maps[i][b, part], x, y)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gather_has_the_gradients_of_grid_sample() -> None:
    gradients = []
    for sampling in ("grid_sample", "gather"):
        maps, locations, weights = problem()
        leaves = [*maps, locations, weights]
        for leaf in leaves:
            leaf.requires_grad_()
        sample_maps(maps, locations, weights, POINTS, sampling).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for a, b in zip(*gradients):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sides", [((6, 6), (3, 3)), ((5, 9), (3, 4)), ((2, 7), (1, 3)), ((4, 1), (1, 1))])
def test_gather_equals_grid_sample_inside_at_the_border_and_far_outside(sides: tuple) -> None:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 8, *side, generator=generator) for side in sides]
    steps = torch.tensor([-1e4, -2.0, -1.0, -0.5, 0.0, 1 / 3, 1.0, 1.2, 3e6])
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)  # corners, edges and centers of cells
    anywhere = torch.rand(2, 4, sum(POINTS), 2, 200, generator=generator) * 4 - 2
    locations = torch.cat([anywhere, grid.expand(2, 4, sum(POINTS), -1, -1)], dim=-1)
    weights = torch.rand(2, 4, sum(POINTS), locations.shape[-1], generator=generator)
    by_grid, by_gather = (sample_maps(maps, locations, weights, POINTS, way) for way in ("grid_sample", "gather"))
    assert_close(by_gather, by_grid, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampling", ["grid_sample", "gather", "discrete"])
def test_a_projection_is_a_linear_layer_on_every_cell(sampling: str) -> None:
    maps, locations, weights = problem()
    layer = torch.nn.Linear(8, 12)
    projected = [layer(level.movedim(1, -1)).movedim(-1, 1) for level in maps]
    expected = sample_maps(projected, locations, weights, POINTS, sampling)
    actual = sample_maps(maps, locations, weights, POINTS, sampling, (layer.weight, layer.bias))
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampling", ["gather", "discrete"])
def test_gathering_needs_no_more_than_five_dimensions_and_no_long_integers(sampling: str) -> None:
    seen: list[torch.Tensor] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            seen.extend(part for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, torch.Tensor))
            return out

    maps, locations, weights = problem()
    with Watch():
        sample_maps(maps, locations, weights, POINTS, sampling)
    assert len(seen) > 10
    assert max(tensor.dim() for tensor in seen) <= 5
    assert not any(tensor.dtype == torch.int64 for tensor in seen)


def test_discrete_takes_the_cell_and_the_border_outside() -> None:
    level = torch.arange(12.0).reshape(1, 1, 3, 4)
    # Published rule: floor(x * W + 0.5), held inside the map.
    places = torch.tensor([[0.0, 0.0], [0.30, 0.5], [5.0, -3.0]]).T.reshape(1, 1, 1, 2, 3)
    found = sample_maps([level], 2 * places - 1, torch.ones(1, 1, 1, 3), (1,), "discrete")
    assert found.flatten().tolist() == [0.0, 9.0, 3.0]
