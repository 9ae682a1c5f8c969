"""Elastic layers, with several active sizes.

Source: Once-for-All (arXiv 1908.09791, section 3.3, elastic kernel size), without its kernel transformation matrices: a
smaller kernel is the center of the larger one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ElasticKernelConv2d"]


class ElasticKernelConv2d(nn.Conv2d):
    """A convolution with any odd kernel size up to ``kernel_size``; it keeps the size of the map at stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the largest kernel, odd; initially active.
        stride: in both directions.
        groups: of the convolution.
        bias: whether it has a bias, which all kernels share.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {kernel_size}, allowed an odd positive number")
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=bias)
        self.active = kernel_size

    def choices(self) -> tuple[int, ...]:
        """Kernel sizes, the largest first."""
        return tuple(range(self.kernel_size[0], 0, -2))

    def activate(self, choice: int) -> None:
        """Use the central ``choice`` x ``choice`` of the kernel.

        Raises:
            ValueError: it is none of :meth:`choices`.
        """
        if choice not in self.choices():
            raise ValueError(f"choice: got {choice!r}, allowed are {self.choices()}")
        self.active = choice

    def _kernel(self) -> Tensor:
        margin = (self.kernel_size[0] - self.active) // 2
        return self.weight[:, :, margin : margin + self.active, margin : margin + self.active]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return F.conv2d(x, self._kernel(), self.bias, self.stride, self.active // 2, groups=self.groups)

    def extract(self) -> nn.Conv2d:
        """A plain convolution with the active kernel."""
        plain = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.active,
            self.stride,  # type: ignore[arg-type]
            self.active // 2,
            groups=self.groups,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        plain.weight.data.copy_(self._kernel())
        if self.bias is not None and plain.bias is not None:
            plain.bias.data.copy_(self.bias)
        return plain.train(self.training)
