"""``efftasks zoo push`` and ``pull``: models on the Hugging Face Hub."""

from __future__ import annotations

import argparse

__all__ = ["add_hub"]


def add_hub(actions: argparse._SubParsersAction) -> None:
    """Add the two actions."""
    push = actions.add_parser(
        "push",
        help="publish a model on the Hugging Face Hub",
        description="Upload an exported file, and a checkpoint if there is one, with a model card: what it is, what it "
        "was measured to do, and how to use it. Log in first: hf auth login.",
    )
    push.add_argument("model", metavar="PATH", help="exported file, or the folder of one")
    push.add_argument("repo", metavar="REPO", help="user/name on the Hub, made if it does not exist")
    push.add_argument("--checkpoint", metavar="FILE", help="checkpoint to upload as well")
    push.add_argument("--config", metavar="CONFIG", help="its config, dumped beside it (default: the sidecar's)")
    push.add_argument("--benchmark", metavar="FILE", help="report.json of efftasks benchmark, for the card")
    push.add_argument("--license", metavar="ID", help="of your weights, as the Hub names it, such as apache-2.0")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.set_defaults(run=run_push)
    pull = actions.add_parser(
        "pull", help="fetch a model from the Hugging Face Hub", description="Fetch a model that was pushed."
    )
    pull.add_argument("repo", metavar="REPO", help="user/name on the Hub")
    pull.add_argument("--out", metavar="DIR", help="folder to copy it to (default: the Hub's cache)")
    pull.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main)")
    pull.set_defaults(run=run_pull)


def run_push(args: argparse.Namespace) -> int:
    """Upload a model, and print its address."""
    from efftasks.apis.hub import push

    print(push(args.model, args.repo, args.checkpoint, args.config, args.benchmark, args.license, args.private))
    return 0


def run_pull(args: argparse.Namespace) -> int:
    """Fetch a model, and print its exported file."""
    from efftasks.apis.hub import pull

    print(pull(args.repo, args.out, args.revision))
    return 0
