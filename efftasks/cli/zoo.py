"""``efftasks zoo``: published checkpoints by name, the cache, and models on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json

from efftasks.cli.zoo_hub import add_hub

EXAMPLES = """examples:
  efftasks zoo                                     the published checkpoints
  efftasks zoo --task semseg --json
  efftasks zoo get dfine-n-coco                    fetch and convert one now, to be offline later
  efftasks zoo get dfine-n-coco --export           also its exported file
  efftasks zoo path                                the folder that they are kept in
  efftasks zoo remove dfine-n-coco
  efftasks zoo push out/ user/my-detector          an exported file, with a model card
  efftasks zoo pull user/my-detector --out out

A name stands where a model does:
  efftasks predict dfine-n-coco photo.jpg
  efftasks export dfine-n-coco --images photos/ --out out
  efftasks train my_config.py --cfg-options load_from=zoo:dfine-n-coco

Files come from their authors' addresses, and are kept in EFFTASKS_CACHE (default: the user's cache). With
EFFTASKS_ZOO_MIRROR=http://host they come from http://host/NAME.pth instead.
"""

_COLUMNS = ("name", "task", "published", "data", "params M", "input", "ms", "license", "MB here")
_NAME = "such as dfine-n-coco"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand and its actions."""
    parser = subparsers.add_parser(
        "zoo",
        help="list and fetch published checkpoints",
        description="List the published checkpoints that have a name, or do something with them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", metavar="TASK", help="list those of a task: det, semseg, pose, backbone")
    parser.add_argument("--json", action="store_true", help="print JSON, with all columns")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    get = actions.add_parser("get", help="fetch and convert", description="Fetch, check and convert checkpoints.")
    get.add_argument("names", nargs="+", metavar="NAME", help=_NAME)
    get.add_argument("--export", action="store_true", help="also export and verify it, as predict does the first time")
    get.add_argument(
        "--new-digest", action="store_true", help="fetch it again, and record the digest that its file has now"
    )
    get.add_argument(  # the default is that of the option before the action
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the file, or the error, as JSON"
    )
    get.set_defaults(run=run_get)
    path = actions.add_parser("path", help="print where it is kept", description="Print the file of a name.")
    path.add_argument("name", nargs="?", metavar="NAME", help=f"{_NAME} (default: the folder of all)")
    path.set_defaults(run=run_path)
    remove = actions.add_parser("remove", help="remove from the cache", description="Remove files from the cache.")
    remove.add_argument("names", nargs="*", metavar="NAME", help=_NAME)
    remove.add_argument("--all", action="store_true", help="all that are there")
    remove.set_defaults(run=run_remove)
    add_hub(actions)


def run(args: argparse.Namespace) -> int:
    """Print the published checkpoints."""
    from efftasks.apis.zoo_table import zoo_rows
    from efftasks.bench.table import to_markdown

    rows = zoo_rows(args.task)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(to_markdown(rows, list(_COLUMNS)))
    print("\npublished: by their authors; ms: of an image in ONNX Runtime, 2 threads, where it was measured here")
    return 0


def run_get(args: argparse.Namespace) -> int:
    """Fetch and convert checkpoints, and print their files."""
    from efftasks.cli.errors import explain

    for name in args.names:
        try:
            from efftasks.apis.zoo import published_artifact, published_checkpoint  # where PyTorch may be missing

            path = (published_artifact if args.export else published_checkpoint)(name, args.new_digest)
        except Exception as error:
            if not args.json:
                raise
            failure = explain(error)
            print(json.dumps({"name": name, "error": failure.sentence}))
            return failure.code
        print(json.dumps({"name": name, "path": str(path)}) if args.json else path)
    return 0


def run_path(args: argparse.Namespace) -> int:
    """Print the folder of the cache, or the converted checkpoint of a name."""
    from efftasks.structures.errors import UserError
    from efftasks.zoo.cache import cache_folder, checkpoint_file
    from efftasks.zoo.catalog import find

    path = cache_folder() if args.name is None else checkpoint_file(find(args.name))
    if args.name is not None and not path.is_file():
        raise UserError(f"{args.name}: it is not here yet; efftasks zoo get {args.name} fetches it")
    print(path)
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """Remove checkpoints from the cache."""
    from efftasks.structures.errors import UserError
    from efftasks.zoo.cache import folder_of, remove
    from efftasks.zoo.catalog import catalog, find

    if bool(args.names) == args.all:
        raise UserError("zoo remove: expected names, or --all")
    entries = [find(name) for name in args.names] or [e for e in catalog().values() if folder_of(e).is_dir()]
    for entry in entries:
        print(f"{entry.name}: {remove(entry) / 1e6:.1f} MB removed")
    return 0
