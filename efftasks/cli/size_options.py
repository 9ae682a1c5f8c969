"""Options of commands that run an artifact at a few input sizes, and choose one for each image."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.runtime.sizes import SizedPredictor

__all__ = ["add_sizes", "check_sizes", "sized_predictor"]


def add_sizes(parser: argparse.ArgumentParser, thresholds: int | str = 1) -> argparse._ArgumentGroup:
    """Add ``--sizes`` and its companions; ``thresholds`` is how many of them there may be, as ``nargs`` has it."""
    group = parser.add_argument_group("an input size for each image, of artifacts")
    group.add_argument(
        "--sizes",
        nargs="+",
        metavar="SIZE",
        help="choose among these: sides in pixels (320), HxW, or other exported files of the same network, smaller or "
        "narrower",
    )
    group.add_argument(
        "--size-rule", metavar="FILE", help="rule that `efftasks test --fit-sizes` wrote (default: built in)"
    )
    group.add_argument(
        "--size-threshold",
        type=float,
        nargs=thresholds,
        metavar="T",
        help="what an answer may lose, in [0, 1]: 0 takes large sizes, 1 the smallest",
    )
    return group


def check_sizes(args: argparse.Namespace) -> None:
    """Whether the options fit each other.

    Raises:
        UserError: they do not.
    """
    from efftasks.structures.errors import UserError
    from efftasks.structures.suffixes import is_checkpoint

    if args.sizes and is_checkpoint(args.model):
        raise UserError(f"--sizes: got a checkpoint, {args.model}, expected an exported file: export it first")
    if args.sizes:
        return
    for option in ("size_rule", "size_threshold", "fit_sizes", "fit_sizes_on"):
        value: Any = getattr(args, option, None)
        if value is not None:
            raise UserError(f"--{option.replace('_', '-')}: got {value!r} without --sizes, expected these as well")


def sized_predictor(args: argparse.Namespace, score_thr: float = 0.0, **settings: Any) -> SizedPredictor:
    """The artifact at its sizes; ``settings`` as :func:`efftasks.runtime.sizes.open_sizes` has them."""
    from efftasks.runtime.sizes import open_sizes, parse_sizes

    threshold = args.size_threshold[0] if args.size_threshold else None
    sizes = parse_sizes(args.sizes)
    return open_sizes(args.model, sizes, args.size_rule, threshold, args.backend, score_thr=score_thr, **settings)
