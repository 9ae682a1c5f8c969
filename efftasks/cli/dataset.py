"""``efftasks dataset``: check, draw and convert data sets, and write the built-in one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from efftasks.cli.dataset_convert import CONVERT, add_options, run_convert

if TYPE_CHECKING:
    from efftasks.datasets.coco_check import CheckReport
    from efftasks.datasets.preview import Preview
    from efftasks.datasets.semantic_check import SemanticReport

EXAMPLES = """examples:
  efftasks dataset shapes --out data/shapes
  efftasks dataset check data/mine/annotations/train.json --images data/mine/images
  efftasks dataset preview data/mine/annotations/train.json --images data/mine/images --out preview
  efftasks dataset check data/streets/ann/train
  efftasks dataset convert --from yolo data/yolo/data.yaml --out data/mine
"""

SHAPES = """examples:
  efftasks dataset shapes --out data/shapes
  efftasks dataset shapes --out data/big --train 4000 --val 500 --size 320 --seed 7

The same seed gives the same bytes. File names in annotations/{train,val}.json are relative to DIR/images.
"""

CHECK = """examples:
  efftasks dataset check train.json --images images/
  efftasks dataset check train.json --images images/ --classes cat,dog --out report.json
  efftasks dataset check pose.json --images images/ --keypoints 17
  efftasks dataset check streets/ann/train                                       images in streets/img/train
  efftasks dataset check masks/ --images photos/ --classes road,car,sky --ignore 255
  efftasks dataset check masks/ --images photos/ --classes background,object --values 0,255

A file is in COCO form; boxes and keypoints may reach 1 px outside of the image. A folder has label maps for semantic
segmentation: PNGs of one channel with the class index of each pixel. Their class names come from --classes, or from a
classes.json in the folder or up to two levels above it.
Exit code: 0 no fault (there may be warnings), 1 at least one fault, 2 a wrong call.
"""

PREVIEW = """examples:
  efftasks dataset preview train.json --images images/ --out preview/
  efftasks dataset preview train.json --images images/ --out preview/ --num 36 --seed 1
  efftasks dataset preview streets/ann/val --out preview/                        label maps over streets/img/val
"""

SOURCE = "COCO annotation file, or folder of label maps"
IMAGES = (
    "folder of the images (default: DIR/images for DIR/annotations/ANN.json; DIR/img/X for DIR/ann/X, images for "
    "labels or annotations, img_dir for ann_dir, leftImg8bit for gtFine)"
)
IGNORE = "label maps: the value of pixels without a class (default: that of classes.json, or 255)"
VALUES = (
    "label maps: the value of each class, in the order of the classes, such as 0,255 for binary masks (default: those "
    "of classes.json, or 0,1,2,...)"
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand and its four actions."""
    parser = subparsers.add_parser(
        "dataset",
        help="check, draw, convert a data set, or write the built-in one",
        description="Check, draw or convert a data set, or write the built-in one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_shapes(actions)
    _add_check(actions)
    _add_preview(actions)
    _add_convert(actions)


def _action(actions: argparse._SubParsersAction, name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_shapes(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "shapes", "write the built-in set: boxes, masks, keypoints and semantic maps", SHAPES)
    parser.add_argument("--out", required=True, metavar="DIR", help="new or empty folder, or one with such a set")
    parser.add_argument("--train", type=int, default=800, metavar="N", help="training images (default: 800)")
    parser.add_argument("--val", type=int, default=100, metavar="M", help="validation images (default: 100)")
    parser.add_argument("--size", type=int, default=128, metavar="S", help="side of the images (default: 128 px)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="seed of the set (default: 0)")


def _add_check(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "check", "report every fault of a COCO file or of a folder of label maps at once", CHECK)
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--images", metavar="DIR", help=IMAGES)
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="class names: those that the categories must have, or those of the indices of label maps",
    )
    parser.add_argument("--ignore", type=int, metavar="K", help=IGNORE)
    parser.add_argument("--values", metavar="N,N,...", help=VALUES)
    parser.add_argument(
        "--keypoints", type=int, metavar="K", help="COCO: number of keypoints that each object must have"
    )
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="examples shown for each kind of fault (default: 3)"
    )
    parser.add_argument("--out", metavar="FILE", help="also write all faults as JSON")


def _add_preview(actions: argparse._SubParsersAction) -> None:
    parser = _action(actions, "preview", "draw boxes, masks and keypoints, or label maps, on some images", PREVIEW)
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--images", metavar="DIR", help=IMAGES)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the pictures and the contact sheet")
    parser.add_argument("--num", type=int, default=16, metavar="N", help="images to draw (default: 16)")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="of the choice of images (default: 0)")
    parser.add_argument("--classes", metavar="A,B,...", help="label maps: class names")
    parser.add_argument("--ignore", type=int, metavar="K", help=IGNORE)
    parser.add_argument("--values", metavar="N,N,...", help=VALUES)


def _add_convert(actions: argparse._SubParsersAction) -> None:
    add_options(
        _action(actions, "convert", "convert YOLO, Pascal VOC, labelme or other COCO data to COCO form", CONVERT)
    )


def run(args: argparse.Namespace) -> int:
    """Run one of the four actions."""
    from efftasks.structures.errors import UserError

    actions = {"shapes": _shapes, "check": _check, "preview": _preview, "convert": run_convert}
    try:
        return actions[args.action](args)
    except ModuleNotFoundError as error:
        package = {"pycocotools": "pycocotools", "PIL": "Pillow"}.get(error.name or "")
        if package is None:
            raise
        raise UserError(f"dataset {args.action} needs {package}; pip install 'efftasks[train]'") from error


def _shapes(args: argparse.Namespace) -> int:
    from efftasks.datasets.shapes import write_shapes

    out = write_shapes(args.out, train=args.train, val=args.val, size=args.size, seed=args.seed)
    print(f"{out}: {args.train} training and {args.val} validation images of {args.size} px, seed {args.seed}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from pathlib import Path

    from efftasks.datasets.coco_convert import split_names
    from efftasks.datasets.coco_file import write_json
    from efftasks.structures.errors import UserError

    for field, value, minimum in (("--keypoints", args.keypoints, 1), ("--examples", args.examples, 0)):
        if value is not None and value < minimum:
            raise UserError(f"{field}: got {value}, expected at least {minimum}")
    classes = split_names(args.classes)
    report: CheckReport | SemanticReport
    if Path(args.source).is_dir():
        from efftasks.datasets.semantic_check import check_semantic
        from efftasks.datasets.semantic_values import parse_values

        _only_for("COCO files", args.source, keypoints=args.keypoints)
        report = check_semantic(args.source, args.images, classes, args.ignore, values=parse_values(args.values))
    else:
        from efftasks.datasets.coco_check import check_coco

        _only_for("folders of label maps", args.source, ignore=args.ignore, values=args.values)
        report = check_coco(args.source, args.images, classes, args.keypoints)
    print(report.render_text(args.examples))
    if args.out:
        write_json(args.out, report.to_dict())
    return 0 if report.ok else 1


def _preview(args: argparse.Namespace) -> int:
    from pathlib import Path

    from efftasks.datasets.coco_convert import split_names

    result: Preview
    if Path(args.source).is_dir():
        from efftasks.datasets.semantic_preview import preview_semantic
        from efftasks.datasets.semantic_values import parse_values

        labels = dict(classes=split_names(args.classes), ignore=args.ignore, values=parse_values(args.values))
        result = preview_semantic(args.source, args.images, args.out, args.num, args.seed, **labels)
    else:
        from efftasks.datasets.coco_preview import preview_coco

        labels = dict(classes=args.classes, ignore=args.ignore, values=args.values)
        _only_for("folders of label maps", args.source, **labels)
        result = preview_coco(args.source, args.images, args.out, args.num, args.seed)
    for reason in result.left_out:
        print(f"left out: {reason}")
    print(f"{len(result.files)} pictures in {args.out}, all of them on {result.sheet}")
    return 0


def _only_for(kind: str, source: str, **options: object) -> None:
    """Refuse options that do not apply to this kind of source."""
    from efftasks.structures.errors import UserError

    for name, value in options.items():
        if value is not None:
            raise UserError(f"--{name}: is for {kind}, and {source} is none")
