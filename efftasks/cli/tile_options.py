"""Options of commands that predict on large images tile by tile."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efftasks.runtime.tile_settings import TileSettings
    from efftasks.runtime.tiles import OnTiles

_OPTIONS = ("tile_margin", "tile_scale", "tile_select", "tile_edges", "tile_levels", "tile_step")


def add_tile_options(parser: argparse.ArgumentParser) -> None:
    """Add them in a group of their own."""
    group = parser.add_argument_group("large images with small objects, of exported files")
    group.add_argument(
        "--tiles",
        type=int,
        nargs="?",
        const=0,
        metavar="SIDE",
        help="look at tiles of the size of the network input; an object is the tile's that has its center. SIDE is "
        "another input size, of files with a dynamic size",
    )
    group.add_argument(
        "--tile-margin",
        type=int,
        metavar="PX",
        help="around the part of a tile that counts, pixels of the network input (default 64, of small inputs a "
        "quarter); objects up to twice of it are seen whole",
    )
    group.add_argument(
        "--tile-scale",
        type=float,
        nargs="+",
        metavar="S",
        help="pixels of the network input for each pixel of the image, one number or x and y (default 1)",
    )
    group.add_argument(
        "--tile-select",
        type=float,
        metavar="T",
        help="skip tiles in which a pass over the image made smaller has no candidate of this score (default 0: all)",
    )
    group.add_argument(
        "--tile-edges",
        type=float,
        metavar="GRAY",
        help="skip tiles without an edge of this many gray levels, at an eighth of the resolution (default 0: all)",
    )
    group.add_argument(
        "--tile-levels",
        type=int,
        metavar="N",
        help="scales: larger objects are found on the image made smaller (default 1)",
    )
    group.add_argument(
        "--tile-step", type=float, metavar="F", help="factor by which it is made smaller each time (default 4)"
    )


def tile_settings(args: argparse.Namespace) -> TileSettings | None:
    """What the options say; None where there are to be no tiles.

    Raises:
        UserError: a value is out of range, or an option needs ``--tiles``.
    """
    from efftasks.runtime.tile_settings import TileSettings
    from efftasks.structures.errors import UserError

    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if args.tiles is None:
        for name, value in given.items():
            raise UserError(f"--{name.replace('_', '-')}: got {value}, but there are no tiles without --tiles")
        return None
    values = {name.removeprefix("tile_"): value for name, value in given.items()}
    if "scale" in values:
        values["scale"] = tuple(values["scale"])
    return TileSettings(side=args.tiles or None, **values)


def tile_progress() -> OnTiles | None:
    """A bar of the tiles of an image below that of the images, where somebody watches."""
    try:
        from tqdm import tqdm
    except ImportError:  # prediction itself needs numpy, OpenCV and the runtime alone
        return None
    bar = tqdm(unit="tile", desc="tiles", position=1, disable=None, leave=False)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
