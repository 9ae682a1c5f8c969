"""Compound scaling: one coefficient scales the depth and width of a network and the resolution of its input.

Source: EfficientNet (arXiv 1905.11946, section 3.3, equations 2 and 3): depth ``alpha**phi``, width ``beta**phi``,
resolution ``gamma**phi``, with ``alpha * beta**2 * gamma**2`` about 2, so that FLOPs grow as ``2**phi``. The widths of
RegNet's rule (arXiv 2003.13678) are in :mod:`efftasks.models.backbones.regnet`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from efftasks.structures.errors import UserError

__all__ = ["Scale", "apply_scale", "compound_scale", "scale_model", "scaled_size"]

# EfficientNet's coefficients, from a grid search for B0.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15


class Scale(NamedTuple):
    """Factors of the number of blocks, the number of channels, and the height and width of the input."""

    depth: float = 1.0
    width: float = 1.0
    resolution: float = 1.0


def compound_scale(phi: float, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Scale:
    """The factors for a compound coefficient.

    Args:
        phi: the coefficient; 0 changes nothing, and FLOPs grow by ``alpha * beta**2 * gamma**2`` when it grows by 1.
        alpha: base of the factor of depth.
        beta: base of the factor of width.
        gamma: base of the factor of resolution; 1 keeps the input size.

    Raises:
        ValueError: a base is below 1.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if value < 1:
            raise ValueError(f"scale.{name}: got {value}, allowed from 1")
    return Scale(alpha**phi, beta**phi, gamma**phi)


def scale_model(model: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """The changes to a model's config: factors of the backbone, channels and depth of the neck.

    Args:
        model: config with a ``backbone`` that has arguments ``width`` and ``depth``, and perhaps a ``neck`` with
            ``out_channels`` and ``depth``.
        scale: the factors; the resolution is not used.

    Returns:
        Part of a config, to be merged into ``model``.
    """
    backbone, neck = model["backbone"], model.get("neck") or {}
    changes: dict[str, Any] = dict(
        backbone=dict(
            width=backbone.get("width", 1.0) * scale.width,
            depth=backbone.get("depth", 1.0) * scale.depth,
        )
    )
    neck_changes: dict[str, Any] = {}
    if "out_channels" in neck:
        neck_changes["out_channels"] = tuple(max(8, round(c * scale.width / 8) * 8) for c in neck["out_channels"])
    if "depth" in neck:
        neck_changes["depth"] = max(1, round(neck["depth"] * scale.depth))
    return {**changes, "neck": neck_changes} if neck_changes else changes


def scaled_size(size: tuple[int, int], scale: Scale, divisor: int = 32) -> tuple[int, int]:
    """(height, width) times the factor of resolution, rounded to multiples of ``divisor``."""
    height, width = (max(1, round(side * scale.resolution / divisor)) * divisor for side in size)
    return height, width


def apply_scale(cfg: Config) -> None:
    """Apply a config's top-level ``scale`` to its model, ``image_size`` and ``crop_size`` in place, and remove it.

    ``scale`` has the arguments of :func:`compound_scale`.

    Raises:
        UserError: it has other arguments, or there is no model to scale.
    """
    arguments = cfg.pop("scale", None) or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"scale: got {arguments!r}, expected a dict with phi, such as scale.phi=2")
    arguments = dict(arguments)
    if not arguments:
        return
    allowed = list(inspect.signature(compound_scale).parameters)
    if "phi" not in arguments or not set(arguments) <= set(allowed):
        raise UserError(
            f"scale: got {', '.join(arguments)}, expected phi, and at most {', '.join(allowed[1:])} beside it"
        )
    try:
        scale = compound_scale(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            str(error) if isinstance(error, ValueError) else f"scale: got {arguments}, expected numbers"
        ) from error
    if not (cfg.get("model") or {}).get("backbone"):
        raise UserError("scale: the config has no model.backbone, expected one to scale")
    cfg.merge_from_dict(dict(model=scale_model(cfg.model, scale)))
    for key in ("image_size", "crop_size"):
        if scale.resolution != 1 and cfg.get(key) is not None:
            cfg[key] = scaled_size(tuple(cfg[key]), scale)
