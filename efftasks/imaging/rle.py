"""COCO's compressed run-length encoding (RLE) of masks in numpy, equal to that of pycocotools' ``mask.encode``.

Runs go down the columns, and the first one is of background. From the fourth on, each run is stored as the difference
from the run two before it. Numbers are written in groups of 5 bits, lowest first, one character each: bit 5 is set if
more groups follow, and bit 4 of the last group is the sign. The format is that of COCO's ``maskApi`` (Dollar and Lin,
BSD-2-Clause).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["decode_rle", "encode_rle"]

_BITS = 5
_SIGN = 1 << (_BITS - 1)
_MORE = 1 << _BITS
_FIRST_CHARACTER = ord("0")
_MAX_GROUPS = 12  # of 5 bits in an int64


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as COCO files have it.

    Args:
        mask: bool (H, W).

    Returns:
        ``{"size": [H, W], "counts": string}``.

    Raises:
        ValueError: the mask is not bool (H, W).
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask: got {mask.dtype} of shape {mask.shape}, allowed is bool (H, W)")
    height, width = mask.shape
    runs = _runs(mask)
    runs[3:] -= runs[1:-2].copy()
    return {"size": [height, width], "counts": _to_string(runs)}


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decode the output of :func:`encode_rle` to bool (H, W).

    Raises:
        ValueError: ``counts`` is no RLE of a mask of that size.
    """
    height, width = rle["size"]
    runs = _from_string(rle["counts"])
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"counts: got runs of {runs.sum()} pixels, expected {height} x {width} of them")
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs down the columns, int64. Rows are compared, so that the mask need not be transposed."""
    height, width = mask.shape
    rows, columns = np.divmod(np.flatnonzero(mask[1:] != mask[:-1]), max(width, 1))
    inner = columns * height + rows + 1
    heads = np.zeros(0, np.int64)  # columns that begin with another value than the last column ended with
    if mask.size:
        heads = np.flatnonzero(mask[0] != np.append(False, mask[-1, :-1])) * height
    changes = np.sort(np.concatenate([inner, heads]))
    return np.diff(changes, prepend=0, append=mask.size)


def _to_string(numbers: np.ndarray) -> str:
    groups = 1 + int(np.abs(numbers).max()).bit_length() // _BITS
    rest = numbers[:, None] >> (_BITS * np.arange(groups + 1))
    bits = rest[:, :-1] & (_MORE - 1)
    more = rest[:, 1:] != np.where(bits & _SIGN, -1, 0)
    written = np.ones_like(more)
    written[:, 1:] = np.logical_and.accumulate(more[:, :-1], axis=1)
    characters = bits + _MORE * more + _FIRST_CHARACTER
    return characters[written].astype(np.uint8).tobytes().decode("ascii")


def _from_string(counts: str) -> np.ndarray:
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not codes.size or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        raise ValueError(f"counts: got {counts[:20]!r}, which is no list of run lengths")
    ends = np.flatnonzero(codes < _MORE)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise ValueError(f"counts: got {counts[:20]!r}, with a run length beyond 64 bits")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), starts)
    negative = (codes[ends] & _SIGN) > 0
    return values - np.where(negative, np.int64(1) << (_BITS * lengths), 0)
