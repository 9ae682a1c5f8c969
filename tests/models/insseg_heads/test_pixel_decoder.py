"""The map that masks are made of: its size, its place in the image, its price."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

import pytest
import torch

from efftasks.compression.folding import inference_model
from efftasks.models.insseg_heads.pixel_decoder import PixelDecoder
from efftasks.structures.features import FeatureSpec


def maps(strides: tuple[int, ...], height: int = 128, width: int = 192) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 8 + s, height // s, width // s, generator=g) for s in strides]


def decoder(strides: tuple[int, ...], channels: int = 16) -> PixelDecoder:
    torch.manual_seed(0)
    return PixelDecoder([FeatureSpec(8 + s, s) for s in strides], channels)


@pytest.mark.parametrize("strides", [(4, 8), (8, 16, 32), (16, 32), (32,)])
def test_one_map_at_the_stride_of_masks(strides: tuple[int, ...]) -> None:
    model = decoder(strides)
    out = model(maps(strides))
    assert model.specs == (FeatureSpec(16, 4),)
    assert out.shape == (2, 16, 32, 48)
    out.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_cell_stays_where_it_was() -> None:
    model = decoder((16, 32)).eval()
    before = maps((16, 32), 256, 256)
    after = [x.clone() for x in before]
    after[0][:, :, 8, 7] += 10  # pixels 128 to 144 down, 112 to 128 across
    with torch.no_grad():
        moved = (model(after) - model(before)).abs().amax((0, 1))
    rows, columns = moved.amax(1).nonzero().flatten(), moved.amax(0).nonzero().flatten()
    # Cells 32 to 35 and 28 to 31, and 14 around them: each 5x5 reaches two cells further, of 16, 8 and 4 pixels.
    assert (int(rows.min()), int(rows.max())) == (32 - 14, 35 + 14)
    assert (int(columns.min()), int(columns.max())) == (28 - 14, 31 + 14)


def test_place_tells_equal_cells_apart() -> None:
    model = decoder((16,)).eval()
    with torch.no_grad():
        out = model([torch.ones(1, 24, 16, 16)])
    inner = out[0, :, 20:-20, 20:-20]  # out of reach of the border
    assert float((inner - inner[:, :1, :1]).abs().amax()) > 1e-3
    with torch.no_grad():
        model.place.weight.zero_()
        out = model([torch.ones(1, 24, 16, 16)])
    inner = out[0, :, 20:-20, 20:-20]
    torch.testing.assert_close(inner, inner[:, :1, :1].expand_as(inner))


def test_fused_equals_trained() -> None:
    model = decoder((8, 16, 32))
    for _ in range(3):
        model(maps((8, 16, 32)))
    fused = inference_model(model)
    with torch.no_grad():
        torch.testing.assert_close(fused(maps((8, 16, 32))), model.eval()(maps((8, 16, 32))), atol=1e-5, rtol=1e-4)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())


@pytest.mark.parametrize("strides", [(6, 12), (24, 48), (8, 32), (2, 4)])
def test_other_strides_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="in_specs: got strides"):
        decoder(strides)
