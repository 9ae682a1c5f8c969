"""Channel-wise divergence: a computation in numpy, what it looks at and what not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efftasks.models.losses.channel_wise import channel_wise_divergence


def by_hand(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    divergences = []
    for pair in zip(student.reshape(-1, student[0, 0].size), teacher.reshape(-1, teacher[0, 0].size)):
        actual, expected = (np.exp(x / temperature) / np.exp(x / temperature).sum() for x in pair)
        divergences.append((expected * np.log(expected / actual)).sum())
    return temperature**2 * float(np.mean(divergences))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_numpy(temperature: float) -> None:
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(0, 3, (2, 2, 5, 4, 7))
    actual = channel_wise_divergence(torch.tensor(student), torch.tensor(teacher), temperature)
    assert actual.item() == pytest.approx(by_hand(student, teacher, temperature), rel=1e-12)


def test_two_pixels_by_hand() -> None:
    # softmax(0, ln 3) = 1/4, 3/4 against 1/2, 1/2: 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4).
    student = torch.tensor([0.0, np.log(3)]).view(1, 1, 1, 2)
    actual = channel_wise_divergence(student, torch.zeros(1, 1, 1, 2), 1.0)
    assert actual.item() == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-6)


def test_only_the_shape_of_a_channel_counts() -> None:
    teacher = torch.randn(2, 3, 4, 5)
    shifted = teacher + torch.randn(2, 3, 1, 1)
    assert channel_wise_divergence(shifted, teacher).abs() < 1e-6
    assert channel_wise_divergence(teacher.flip(3), teacher) > 0.01


def test_the_gradient_leads_to_the_teacher() -> None:
    teacher, student = torch.randn(2, 1, 3, 4, 4).unbind()
    student.requires_grad_()
    losses = []
    for _ in range(200):
        loss = channel_wise_divergence(student, teacher, 1.0)
        (gradient,) = torch.autograd.grad(loss, student)
        with torch.no_grad():
            student -= 10 * gradient
        losses.append(loss.item())
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 1, 2, 64, 64).to(dtype).unbind()
    actual = channel_wise_divergence(student, teacher)
    assert actual.dtype == torch.float32
    # Dividing by 4 is exact, so the rounding of the inputs is all there is.
    torch.testing.assert_close(actual, channel_wise_divergence(student.float(), teacher.float()))


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match=r"teacher: got shape \(1, 2, 4, 4\), expected the student's \(1, 2, 2, 2\)"):
        channel_wise_divergence(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 4, 4))
