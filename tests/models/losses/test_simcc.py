import numpy as np
import pytest
import torch
import torch.nn.functional as F

from efftasks.models.losses.simcc import SimCCLoss


def make(batch: int = 3, keypoints: int = 4, bins: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, keypoints, bins, generator=random)
    targets = torch.rand(batch, keypoints, bins, generator=random)
    weights = (torch.rand(batch, keypoints, generator=random) > 0.4).float()
    return logits, targets, weights


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_against_the_divergence_of_torch_written_out(beta):
    """As mmpose has it, keypoint by keypoint; it means over bins and divides by all keypoints, so that is undone."""
    logits, targets, weights = make()
    bins = logits.shape[2]
    total = torch.zeros(())
    for k in range(logits.shape[1]):
        expected = F.softmax(targets[:, k] * beta, dim=1)
        each = F.kl_div(F.log_softmax(logits[:, k] * beta, dim=1), expected, reduction="none").mean(1)
        total += (each * weights[:, k]).sum()
    actual = SimCCLoss(beta)(logits, targets, weights)
    torch.testing.assert_close(actual, total * bins / weights.sum())


def test_against_numpy():
    logits, targets, weights = make()

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    p, q = softmax(10 * targets.double().numpy()), softmax(10 * logits.double().numpy())
    expected = ((p * np.log(p / q)).sum(-1) * weights.numpy()).sum() / weights.sum().item()
    assert SimCCLoss()(logits, targets, weights).item() == pytest.approx(expected, rel=1e-4)


def test_the_target_itself_has_no_loss_and_any_constant_may_be_added():
    _, targets, weights = make()
    assert SimCCLoss()(targets + 3.0, targets, weights).item() == pytest.approx(0, abs=1e-5)


def test_without_weight_the_gradient_is_zero():
    logits, targets, weights = make()
    logits.requires_grad_()
    loss = SimCCLoss()(logits, targets, 0 * weights)
    loss.backward()
    assert loss == 0 and logits.grad is not None and not logits.grad.any()
