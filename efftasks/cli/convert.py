"""``efftasks convert``: convert published checkpoints to this package."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  efftasks convert --from dfine dfine_n_coco.pth --out dfine-n.pth
  efftasks convert --from deimv2 hub/model.safetensors --out pico.pth       transformers' file, config.json beside it
  efftasks convert --from rtdetrv2 mine.pth --out mine-eff.pth --categories annotations/train.json
  efftasks convert --from mmseg pidnet-s_2xb6-120k_1024x1024-cityscapes.pth --out pidnet.pth
  efftasks test dfine-n_hgnetv2-b0_8xb16-160e_coco-640 dfine-n.pth --cfg-options data_root=data/coco

The config is found from the shapes of the tensors. A tensor that is not in its model is an error. The result has the
names and category ids of its classes: the 80 of COCO in their order, or those of --categories, matched by id.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "convert",
        help="turn a published checkpoint into this package's",
        description="Convert a checkpoint of D-FINE, DEIM, DEIMv2 (HGNetV2) or RT-DETRv2: theirs, or transformers'; of "
        "DETRPose; or of mmseg: BiSeNetV2, DDRNet, Fast-SCNN, PIDNet, STDC.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from",
        dest="family",
        required=True,
        choices=("dfine", "deim", "deimv2", "rtdetrv2", "detrpose", "mmseg"),
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".pth of the authors; .safetensors of transformers")
    parser.add_argument("--out", required=True, metavar="FILE", help="the checkpoint to write")
    parser.add_argument("--config", metavar="CONFIG", help="its config (default: the shipped one that fits)")
    parser.add_argument("--categories", metavar="FILE", help="a COCO annotation file with the classes, matched by id")
    parser.add_argument(
        "--plain-ids",
        action="store_true",
        help="the checkpoint's labels are category ids, not the 80 classes of COCO in order",
    )
    parser.add_argument(
        "--allow-unmapped", action="store_true", help="write the checkpoint even if tensors are unknown or missing"
    )
    parser.add_argument("--list", action="store_true", help="print the mapping of every tensor")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert a checkpoint and print its config and classes."""
    from efftasks.apis.converting import read_published, write_published

    published = read_published(args.family, args.checkpoint, args.config, args.categories, args.plain_ids)
    if args.list:
        print(published.conversion.listing())
    if args.categories:
        print("classes, matched by id:")
        for name, id_, row in zip(published.classes, published.category_ids, published.rows):
            print(f"  {name} (id {id_}): label {row} of the file")
    print(f"{published.config}: {published.conversion.summary()}, {len(published.classes)} classes")
    write_published(published, args.out, args.allow_unmapped)
    print(args.out)
    return 0
