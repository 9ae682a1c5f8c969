"""The decode of semantic segmentation against OpenCV's interpolation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from efftasks.ops.semantic import label_map


def test_labels_are_the_best_of_the_enlarged_scores() -> None:
    logits = torch.randn(2, 5, 6, 9, generator=torch.Generator().manual_seed(0))
    found = label_map(logits, (48, 72))
    for scores, labels in zip(logits, found):
        planes = [cv2.resize(plane.numpy(), (72, 48), interpolation=cv2.INTER_LINEAR) for plane in scores]
        expected = np.argmax(planes, axis=0)
        # OpenCV and PyTorch round differently where two classes tie.
        assert (labels.numpy() == expected).mean() > 0.999
    assert found.dtype == torch.uint8


def test_coarse_labels_are_repeated() -> None:
    logits = torch.randn(1, 7, 4, 5, generator=torch.Generator().manual_seed(1))
    found = label_map(logits, (32, 40), coarse=True)
    assert np.array_equal(found[0], np.kron(logits[0].argmax(0).numpy(), np.ones((8, 8))))


@pytest.mark.parametrize("coarse", [False, True])
def test_the_highest_class_fits(coarse: bool) -> None:
    logits = torch.zeros(1, 255, 2, 2)
    logits[0, 254] = 1
    assert (label_map(logits, (4, 4), coarse=coarse) == 254).all()
