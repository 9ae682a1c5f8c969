"""Random cells lie where they should, and the unsure ones are the unsure ones."""

from __future__ import annotations

import torch

from efftasks.ops.cells import object_windows, random_cells, unsure_cells

WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])


def test_cells_cover_a_window_and_nothing_else() -> None:
    torch.manual_seed(0)
    window = torch.tensor([0.25, 0.5, 0.75, 1.0]).expand(2000, 4)
    cells = random_cells(window, (8, 16))
    rows, columns = cells // 16, cells % 16
    assert set(rows.tolist()) == {4, 5, 6, 7}
    assert set(columns.tolist()) == set(range(4, 12))


def test_cells_of_a_window_are_equally_likely() -> None:
    torch.manual_seed(0)
    counts = torch.bincount(random_cells(WHOLE.expand(64_000, 4), (4, 8)), minlength=32)
    assert int(counts.min()) > 1800 and int(counts.max()) < 2200  # 2000 on average, with a deviation of 44


def test_the_last_cell_is_inside() -> None:
    corner = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert int(random_cells(corner, (4, 8))) == 31


def test_half_of_the_windows_are_around_valid_objects() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.9, 0.9, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]]])
    windows = object_windows(boxes, torch.tensor([[True, False, True]]), 100)[0]
    rows, counts = windows.unique(dim=0, return_counts=True)
    # A quarter wider than the boxes, which end at 0.4 and 0.6 across, 0.3 and 0.7 down; and at 0.05 and 0.15.
    expected = torch.tensor([WHOLE.tolist(), [0.0375, 0.0375, 0.1625, 0.1625], [0.375, 0.25, 0.625, 0.75]])
    torch.testing.assert_close(rows, expected)
    assert int(counts[0]) == 50 and int(counts[1:].min()) > 10


def test_windows_stay_inside_the_image_and_exist_without_objects() -> None:
    windows = object_windows(torch.tensor([[[0.9, 0.9, 0.4, 0.4]]]), torch.tensor([[True]]), 2)[0]
    torch.testing.assert_close(windows, torch.tensor([[0.65, 0.65, 1.0, 1.0], WHOLE.tolist()]))
    nothing = object_windows(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool), 3)
    torch.testing.assert_close(nothing, WHOLE.expand(2, 3, 4))


def test_unsure_cells_have_the_logits_nearest_to_zero() -> None:
    logits = torch.tensor([[5.0, -0.1, 3.0, 0.2, -9.0], [1.0, 2.0, -3.0, 4.0, 0.5]])
    candidates = torch.tensor([[0, 1, 2, 4], [3, 2, 1, 1]])
    found = unsure_cells(logits, candidates, 2)
    assert [sorted(row) for row in found.tolist()] == [[1, 2], [1, 1]]
