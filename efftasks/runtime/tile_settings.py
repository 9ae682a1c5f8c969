"""How large images are cut into tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from efftasks.structures.errors import UserError

__all__ = ["TileSettings"]

_MARGIN = 64  # pixels of the network input: objects up to 128 are seen whole


@dataclass(frozen=True)
class TileSettings:
    """How large images are cut.

    Attributes:
        side: of the network input in pixels, of files with a dynamic size; None for the size of the predictor.
        margin: around each core, in pixels of the network input, rounded up to a multiple of half of the network's
            stride; None for 64, of small network inputs a quarter of a side. Objects up to two margins are seen whole.
        scale: pixels of the network input for each pixel of the image: one number, or (x, y).
        select: only tiles are looked at in which the next smaller scale has a candidate of at least this score; 0 for
            all of them.
        edges: only tiles are looked at in which the gray level changes by at least this much from a pixel to the next,
            in the image made smaller by 8; 0 for all of them.
        levels: number of scales whose objects are taken, the finest first; fewer where a tile has the whole image
            before. The last scale has all objects that are too large for the others.
        step: factor between a scale and the next smaller one.

    Raises:
        UserError: one of them is out of range.
    """

    side: int | None = None
    margin: int | None = None
    scale: float | tuple[float, ...] = 1.0
    select: float = 0.0
    edges: float = 0.0
    levels: int = 1
    step: float = 4.0

    def __post_init__(self) -> None:
        least = 0 if self.levels == 1 else 1  # of several scales the margin says which of them has an object
        checks = (
            ("side", self.side, self.side is None or self.side >= 1, "an integer from 1"),
            ("margin", self.margin, self.margin is None or self.margin >= least, f"an integer from {least}"),
            (
                "scale",
                self.scale,
                len(self._scales) in (1, 2) and all(0.01 <= s <= 100 for s in self._scales),
                "one or two numbers in 0.01 to 100",
            ),
            ("select", self.select, 0 <= self.select <= 1, "a score in 0 to 1"),
            ("edges", self.edges, 0 <= self.edges <= 255, "gray levels in 0 to 255"),
            ("levels", self.levels, self.levels >= 1, "an integer from 1"),
            ("step", self.step, 1.5 <= self.step <= 64, "a number in 1.5 to 64"),
        )
        for name, value, valid, expected in checks:
            if not valid:
                raise UserError(f"tiles: {name}: got {value}, expected {expected}")

    @property
    def scales(self) -> tuple[float, float]:
        """``scale`` as (x, y)."""
        values = self._scales
        return values[0], values[-1]

    @property
    def _scales(self) -> tuple[float, ...]:
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    def margin_of(self, size: tuple[int, int], stride: int) -> int:
        """The margin in pixels of the network input, a multiple of half of the stride of the network.

        Args:
            size: (height, width) of the network input.
            stride: of the network.

        Raises:
            UserError: two margins leave no core.
        """
        # Windows lie two margins closer than their side, and begin at multiples of the stride.
        unit = stride // 2 if stride % 2 == 0 else stride
        default = max(unit, min(_MARGIN, min(size) // 4) // unit * unit)
        margin = default if self.margin is None else math.ceil(self.margin / unit) * unit
        if 2 * margin >= min(size):
            raise UserError(
                f"tiles: margin: got {margin} on both sides of a core (a multiple of {unit}), expected less than half "
                f"of the network input of {size[0]} x {size[1]}"
            )
        return margin
