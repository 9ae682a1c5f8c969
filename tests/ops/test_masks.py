import pytest
import torch
from torch.testing import assert_close

from efftasks.ops.masks import box_window, mask_dice, mask_iou, masks_to_boxes


def test_a_window_has_the_cells_whose_center_is_inside():
    window = box_window(torch.tensor([5.0, 0.0, 11.0, 6.0]), (3, 4), 4)
    # Centers lie at 2, 6, 10, 14 across and at 2, 6, 10 down.
    assert window.int().tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    wider = box_window(torch.tensor([5.0, 0.0, 11.0, 6.0]), (3, 4), 4, margin=4)
    assert wider.int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_boxes_around_masks_by_hand():
    masks = torch.zeros(4, 4, 5)
    masks[0, 1, 2] = 1.0  # halfway to the next center it is 0.5: the sides of the cell
    masks[1, 0, 0] = masks[1, 3, 4] = 1.0
    masks[2] = 0.5  # not above the threshold
    masks[3, 1, 2], masks[3, 1, 3] = 0.75, 0.25  # 0.5 lies a third of the way up and down, half of it to the right
    found = masks_to_boxes(masks, 0.5, 4)
    assert found[:3].tolist() == [[8, 4, 12, 8], [0, 0, 20, 16], [0, 0, 0, 0]]
    assert_close(found[3], torch.tensor([10 - 4 / 3, 6 - 4 / 3, 12, 6 + 4 / 3]))


def test_boxes_hold_the_interpolated_masks():
    generator = torch.Generator().manual_seed(3)
    masks = torch.nn.functional.avg_pool2d(torch.rand(40, 9, 11, generator=generator), 3, 1)  # (40, 7, 9)
    size = (7 * 32, 9 * 32)  # 32 steps a cell
    fine = torch.nn.functional.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]
    for mask, box in zip(fine, masks_to_boxes(masks, 0.6, 32)):
        y, x = (mask > 0.6).nonzero(as_tuple=True)
        if not len(x):
            continue
        left, top, right, bottom = box.tolist()
        assert left <= x.min() + 0.5 and right >= x.max() + 0.5 and top <= y.min() + 0.5 and bottom >= y.max() + 0.5


def test_overlaps_by_hand():
    a, b = torch.zeros(4, 4), torch.zeros(4, 4)
    a[:2], b[1:3] = 1, 1  # 8 cells each, 4 of them common
    assert_close(mask_iou(a, b), torch.tensor(4 / 12))
    assert_close(mask_dice(a, b), torch.tensor(8 / 16))
    assert mask_iou(torch.zeros(4, 4), torch.zeros(4, 4)) == 0


@pytest.mark.parametrize("function", [mask_iou, mask_dice])
def test_overlaps_broadcast(function):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(3, 5, 5, generator=generator), torch.rand(2, 5, 5, generator=generator)
    table = function(a[:, None], b[None])
    assert table.shape == (3, 2)
    assert_close(table[2, 1], function(a[2], b[1]))
