"""mmseg's losses that configs here rely on, against numpy; where one fails, mmseg has changed under them."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

import numpy as np
import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss, OhemCrossEntropy
from torch import Tensor

IGNORED = 255
WEIGHTS = [0.5, 1.0, 4.0]


def example() -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (2, 6, 5))
    label[0, 0] = label[1, :, 2] = IGNORED
    return torch.tensor(random.standard_normal((2, 3, 6, 5)) * 2), torch.tensor(label)


def known(logits: Tensor, label: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the right class and that class, of all pixels that count."""
    powers = np.exp(logits.numpy())
    scores = np.moveaxis(powers / powers.sum(1, keepdims=True), 1, -1).reshape(-1, 3)
    labels = label.numpy().ravel()
    kept = labels != IGNORED
    return scores[kept, labels[kept]], labels[kept]


def test_cross_entropy_is_the_mean_over_what_counts() -> None:
    logits, label = example()
    right, _ = known(logits, label)
    loss = CrossEntropyLoss(avg_non_ignore=True, loss_weight=2.0)(logits, label, ignore_index=IGNORED)
    assert loss.item() == pytest.approx(2 * -np.log(right).mean(), abs=1e-6)


def test_class_weights_make_a_weighted_mean() -> None:
    logits, label = example()
    right, labels = known(logits, label)
    weights = np.array(WEIGHTS)[labels]
    expected = -(weights * np.log(right)).sum() / weights.sum()
    # Without avg_non_ignore, and yet over what counts: the sum of weights is that of the labels that count.
    loss = CrossEntropyLoss(class_weight=WEIGHTS)(logits, label, ignore_index=IGNORED)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_class_weights_fail_with_avg_non_ignore() -> None:
    """mmseg 1.x indexes the labels that count by the labels: such a config must leave one of the two out."""
    logits, label = example()
    with pytest.raises(IndexError):
        CrossEntropyLoss(class_weight=WEIGHTS, avg_non_ignore=True)(logits, label, ignore_index=IGNORED)


@pytest.mark.parametrize(("threshold", "least"), [(0.7, 5), (0.1, 20)])
def test_ohem_is_the_mean_over_the_hardest(threshold: float, least: int) -> None:
    logits, label = example()
    right, _ = known(logits, label)
    kept = np.sort(right)
    kept = kept[kept < max(threshold, kept[least])]
    assert len(kept) >= least
    loss = OhemCrossEntropy(thres=threshold, min_kept=least)(logits, label)
    assert loss.item() == pytest.approx(-np.log(kept).mean(), abs=1e-6)


def test_ohem_fits_no_decode_head() -> None:
    """A head that does not call it by itself, as PIDNet's does, passes what it does not take.

    Such a head gets mmseg's ``OHEMPixelSampler`` instead, with cross-entropy.
    """
    logits, label = example()
    with pytest.raises(TypeError):
        OhemCrossEntropy()(logits, label, weight=None, ignore_index=IGNORED)
