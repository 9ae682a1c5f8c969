"""Compound scaling: one coefficient scales the depth and width of a network and the resolution of its input.

Source: EfficientNet (arXiv 1905.11946, section 3.3, equations 2 and 3): depth ``alpha**phi``, width ``beta**phi``,
resolution ``gamma**phi``, with ``alpha * beta**2 * gamma**2`` about 2, so that FLOPs grow as ``2**phi``. The widths of
RegNet's rule (arXiv 2003.13678) are in :mod:`efftasks.models.backbones.regnet`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from efftasks.linking.declared import declared
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
    """The changes to a model's config: arguments of its parts that are numbers of channels or blocks, or factors.

    A class declares these arguments in ``scaled_arguments``, see :mod:`efftasks.linking.declared`. A backbone that
    declares none has factors ``width`` and ``depth``; a neck may have ``out_channels`` and ``depth``, a number of
    blocks.

    Args:
        model: config with a ``backbone``.
        scale: the factors; the resolution is not used.

    Returns:
        Part of a config, to be merged into ``model``.
    """
    changes: dict[str, Any] = {}
    for name, part in model.items():
        if not isinstance(part, Mapping):
            continue
        arguments = declared(part.get("type"), "scaled_arguments") or _ARGUMENTS.get(name, {})
        scaled = {
            argument: _SCALED[measure](part.get(argument, 1.0), scale)
            for argument, measure in arguments.items()
            if argument in part or measure in ("width", "depth")
        }
        if scaled:
            changes[name] = scaled
    return changes


def _scaled_channels(channels: Any, scale: Scale) -> Any:
    """One or several numbers of channels, to multiples of 8."""
    if isinstance(channels, (list, tuple)):
        return tuple(_scaled_channels(c, scale) for c in channels)
    return max(8, round(channels * scale.width / 8) * 8)


# What `scaled_arguments` may state: from an argument to its scaled value.
_SCALED: dict[str, Callable[[Any, Scale], Any]] = {
    "width": lambda factor, scale: factor * scale.width,
    "depth": lambda factor, scale: factor * scale.depth,
    "channels": _scaled_channels,
    "blocks": lambda count, scale: max(1, round(count * scale.depth)),
}
# Arguments of the parts whose classes declare none.
_ARGUMENTS = {
    "backbone": {"width": "width", "depth": "depth"},
    "neck": {"out_channels": "channels", "depth": "blocks"},
}


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
