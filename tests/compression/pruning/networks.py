"""Small networks, each with one way in which channels depend on one another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Chain(nn.Module):
    """Convolution, norm, convolution: the first one's outputs are free."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x))))


class Residual(nn.Module):
    """Two layers whose maps are added, and an inner one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + self.outer(F.silu(self.inner(x))))


class Elan(nn.Module):
    """A map in two halves, one of which is processed; all are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.split = nn.Conv2d(3, 16, 1)
        self.pair = nn.Conv2d(8, 8, 3, padding=1)
        self.merge = nn.Conv2d(24, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.split(x).chunk(2, 1)
        return self.last(self.merge(torch.cat([two, one, self.pair(two)], 1)))


class Depthwise(nn.Module):
    """Expansion, depthwise convolution, squeeze-excite, projection with a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(F.relu(self.expand(x)))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.last(self.project(x) * self.scale)


class Grouped(nn.Module):
    """A convolution with four groups of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 3, groups=4), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.grouped(self.first(x))))


class Tokens(nn.Module):
    """A transformer block: attention and the residual stream stay, the feed-forward networks do not."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.w12, self.w3 = nn.Linear(16, 48), nn.Linear(24, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = x + self.fc2(F.gelu(self.fc1(x)))
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.out(x + self.w3(F.silu(gate) * value))


class Strange(nn.Module):
    """What must be left alone: an operation without a rule, a weight that is read, a slice, a reshape, a reduction."""

    def __init__(self) -> None:
        super().__init__()
        self.shuffled, self.read, self.sliced, self.folded, self.summed = (nn.Conv2d(3, 16, 1) for _ in range(5))
        self.free = nn.Conv2d(3, 16, 1)
        self.last = nn.ModuleList(nn.Conv2d(width, 2, 1) for width in (4, 16, 8, 8, 16))
        self.end = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.last[0](F.pixel_shuffle(self.shuffled(x), 2)),
            self.last[1](F.conv2d(x, self.read.weight)),
            self.last[2](self.sliced(x)[:, 3:11]),
            self.last[3](self.folded(x).reshape(x.shape[0], 8, 2 * x.shape[2], x.shape[3])),
            self.last[4](self.free(x) * self.summed(x).sum(1, keepdim=True)),
        ]


class Twice(nn.Module):
    """One layer for two maps, as heads of several levels share it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.shared = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.shared(self.one(x)), self.shared(self.two(x))


class Branches(nn.Module):
    """A branch that only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.main, self.main_out = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.other, self.other_out = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = [self.main_out(self.main(x))]
        if self.training:
            outputs.append(self.other_out(self.other(x)))
        return outputs
