"""Masks as windows are the masks."""

from __future__ import annotations

import pickle

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from efftasks.datasets.transforms.mask_windows import (
    WindowMasks,
    cut_windows,
    join_windows,
    mask_shares,
    move_windows,
    paste_windows,
    window_boxes,
    windows_of,
)


def masks() -> np.ndarray:
    """Nothing, a pixel, a ring, two parts, and all."""
    found = np.zeros((5, 22, 31), np.uint8)
    found[1, 21, 30] = 1
    found[2, 4:12, 5:14] = 1
    found[2, 6:10, 7:12] = 0
    found[3, 1:3, 2:9] = 1
    found[3, 17:20, 20:30] = 1
    found[4] = 1
    return found


def test_cut_and_pasted_is_the_same() -> None:
    windows = cut_windows(masks())
    np.testing.assert_array_equal(paste_windows(windows, (22, 31)), masks())
    assert window_boxes(windows).tolist() == [
        [0, 0, 0, 0],
        [30, 21, 31, 22],
        [5, 4, 14, 12],
        [2, 1, 30, 20],
        [0, 0, 31, 22],
    ]
    both = join_windows([windows, windows.take(np.array([2, 1])).shift(1, -1)])
    pasted = paste_windows(both.take(np.array([5, 0])), (22, 31))
    np.testing.assert_array_equal(pasted[0, :21, 1:], masks()[2, 1:, :-1])


def test_moves_by_hand() -> None:
    size = (30, 40)
    twice = paste_windows(move_windows(cut_windows(masks()), np.array([[2.0, 0, -3], [0, 2, 1]]), size), size)
    np.testing.assert_array_equal(twice[2, 9:25, 7:25], masks()[2, 4:12, 5:14].repeat(2, 0).repeat(2, 1))
    assert twice[2].sum() == 4 * masks()[2].sum() and twice[:2].sum() == 0
    # A quarter turn clockwise: the top left corner goes to the top right.
    turned = paste_windows(move_windows(cut_windows(masks()), np.array([[0.0, -1, 22], [1, 0, 0]]), (31, 22)), (31, 22))
    np.testing.assert_array_equal(turned, np.rot90(masks(), -1, axes=(1, 2)))
    whole = paste_windows(move_windows(cut_windows(masks()), np.array([[1.0, 0, -6], [0, 1, 3]]), (12, 20)), (12, 20))
    np.testing.assert_array_equal(whole[:, 3:], masks()[:, :9, 6:26])


def test_mmdets_interface() -> None:
    kept = WindowMasks(cut_windows(masks()), 22, 31)
    plain = BitmapMasks(masks(), 22, 31)
    assert len(kept) == 5 and kept.areas.tolist() == plain.areas.tolist()
    for index in (2, slice(1, 4), np.array([True, False, True, False, True]), np.array([3, 0]), slice(0, 0)):
        np.testing.assert_array_equal(kept[index].masks, plain[index].masks)
    np.testing.assert_array_equal(kept.to_ndarray(), masks())
    samples = [InstanceData(masks=kept), InstanceData(masks=kept)[torch.tensor([4, 1])]]
    np.testing.assert_array_equal(InstanceData.cat(samples).masks.masks, masks()[[0, 1, 2, 3, 4, 4, 1]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept)).masks, masks())
    np.testing.assert_array_equal(paste_windows(windows_of(plain), (22, 31)), paste_windows(windows_of(kept), (22, 31)))
    assert len(pickle.dumps(WindowMasks(cut_windows(masks()[:4]), 22, 31))) < masks()[:4].size


@pytest.mark.parametrize("size", [(24, 32), (40, 36)])
@pytest.mark.parametrize("stride", [4, 2])
def test_shares_are_averages(size: tuple[int, int], stride: int) -> None:
    whole = torch.zeros(5, 1, *size)
    whole[:, 0, :22, :31] = torch.from_numpy(masks())
    expected = (F.avg_pool2d(whole, stride)[:, 0] * 255).round().to(torch.uint8)
    np.testing.assert_array_equal(mask_shares(WindowMasks(cut_windows(masks()), 22, 31), stride, size), expected)
