"""Channel-wise knowledge distillation: each channel of a map is a distribution over its pixels.

Source: CWD (arXiv 2011.13256), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["channel_wise_divergence"]


def channel_wise_divergence(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Mean over images and channels of the divergence of the student's distribution over pixels from the teacher's.

    ``T^2 / (B C) sum_bc KL(softmax(teacher_bc / T) || softmax(student_bc / T))``, both softmaxes over the pixels of a
    channel; computed in float32 at least. The teacher's map is not detached here.

    Args:
        student: maps or logits (B, C, H, W).
        teacher: of the same shape.
        temperature: T; a larger one spreads the distributions over more pixels.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"teacher: got shape {tuple(teacher.shape)}, expected the student's {tuple(student.shape)}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    student_log_prob = functional.log_softmax(student.flatten(2) / temperature, -1, dtype=dtype)
    teacher_log_prob = functional.log_softmax(teacher.flatten(2) / temperature, -1, dtype=dtype)
    total = functional.kl_div(student_log_prob, teacher_log_prob, reduction="sum", log_target=True)
    return total * (temperature**2 / (student.shape[0] * student.shape[1]))
