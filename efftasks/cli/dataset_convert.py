"""``efftasks dataset convert``: convert the exports of annotation tools to the form that training takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from efftasks.datasets.convert_source import Source

CONVERT = """examples:
  efftasks dataset convert --from yolo mine/data.yaml --out mine_coco        Ultralytics, Roboflow; or the folder
  efftasks dataset convert --from yolo mine --out mine                       into the folder itself
  efftasks dataset convert --from coco export --out mine --val-share 0.2     CVAT, Label Studio, Roboflow
  efftasks dataset convert --from voc VOC2012 --out voc                      ImageSets/Main/{train,val}.txt
  efftasks dataset convert --from labelme photos --out mine --val-share 0.2  one JSON file an image
  efftasks dataset convert --from yolo mine --split val --out val.json       one part, one file, images as they are

OUT gets annotations/train.json, annotations/val.json (and test.json) and images/: custom configs train on it with
data_root=OUT. Images inside OUT stay where they are; others are linked into OUT/images (hard links take no space, and
need no rights on Windows), or copied where the file system has no links.
Images whose annotations cannot be read are left out, counted and named.
"""

Classes = Sequence[str] | None


class Format(NamedTuple):
    """An annotation format that can be converted."""

    read: Callable[[argparse.Namespace, Classes], Source]
    options: tuple[str, ...] = ()  # those that apply to some formats only


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    parser.add_argument("source", metavar="SOURCE", help="folder of the data set, its data.yaml, or a COCO file")
    parser.add_argument("--from", dest="form", required=True, choices=tuple(FORMATS), help="format of SOURCE")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write, or one ANN.json")
    parser.add_argument("--val-share", type=float, metavar="X", help="share of the images for validation")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the choice of those images (default: 0)")
    parser.add_argument("--split", metavar="NAME", help="convert only this part of SOURCE, such as train")
    parser.add_argument("--images", metavar="DIR", help="folder of the images, if it is not a usual one")
    parser.add_argument(
        "--labels", metavar="DIR", help="folder of the label, XML or JSON files, if it is not a usual one"
    )
    parser.add_argument("--classes", metavar="A,B,...", help="class names in the order of the category ids")
    parser.add_argument("--names", metavar="FILE", help="yolo: data.yaml or classes.txt with the names")
    parser.add_argument(
        "--pictures",
        choices=("link", "copy", "refer"),
        default="link",
        help="images outside of OUT: link (default) or copy them, or refer to them by path",
    )
    parser.add_argument(
        "--voc-offset",
        type=int,
        choices=(0, 1),
        help="voc: 1 (default) pixels count from 1 and xmax is inside the box, as in VOC; 0 plain coordinates",
    )
    parser.add_argument("--skip-difficult", action="store_true", help="voc: leave out objects marked as difficult")
    parser.add_argument("--no-crowd", action="store_true", help="coco: convert regions with iscrowd to objects")


def run_convert(args: argparse.Namespace) -> int:
    """Convert a data set and print the report."""
    from pathlib import Path

    from efftasks.datasets.coco_convert import split_names
    from efftasks.datasets.convert_run import choose_parts
    from efftasks.datasets.convert_write import render_written, write_file, write_folder
    from efftasks.structures.errors import UserError

    for folder in (args.images, args.labels):
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder")
    for option in sorted({option for form in FORMATS.values() for option in form.options}):
        value = getattr(args, option)
        if value is not None and value is not False and option not in FORMATS[args.form].options:
            accepting = " or ".join(name for name, form in FORMATS.items() if option in form.options)
            raise UserError(f"--{option.replace('_', '-')}: is for --from {accepting}, got --from {args.form}")
    source = FORMATS[args.form].read(args, split_names(args.classes))
    one_file = Path(args.out).suffix.lower() == ".json"
    if one_file:
        parts = choose_parts(source, args.split) if args.split else dict(source.parts)
        written = write_file(source, parts, args.out)
    else:
        parts = choose_parts(source, args.split, args.val_share, args.seed)
        written = write_folder(source, parts, args.out, args.pictures)
    print(render_written(written))
    return 0


def _read_yolo(args: argparse.Namespace, classes: Classes) -> Source:
    from efftasks.datasets.convert_yolo import read_yolo

    return read_yolo(args.source, classes, args.names, args.images, args.labels)


def _read_voc(args: argparse.Namespace, classes: Classes) -> Source:
    from efftasks.datasets.convert_voc import read_voc

    offset = 1 if args.voc_offset is None else args.voc_offset
    return read_voc(args.source, classes, args.images, args.labels, offset, args.skip_difficult)


def _read_coco(args: argparse.Namespace, classes: Classes) -> Source:
    from efftasks.datasets.convert_coco import read_coco_export

    return read_coco_export(args.source, classes, args.images, crowds=not args.no_crowd)


def _read_labelme(args: argparse.Namespace, classes: Classes) -> Source:
    from efftasks.datasets.convert_labelme import read_labelme

    return read_labelme(args.source, classes, args.images, args.labels)


# In the order of the help.
FORMATS = {
    "yolo": Format(_read_yolo, ("names", "labels")),
    "voc": Format(_read_voc, ("labels", "voc_offset", "skip_difficult")),
    "coco": Format(_read_coco, ("no_crowd",)),
    "labelme": Format(_read_labelme, ("labels",)),
}
