"""``efftasks scale``: compound scaling of a config, and the cost of each size."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  efftasks scale o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640 --phi 0 1 2 3
  efftasks scale my_config.py --phi 2 --gamma 1 --out configs/          the input keeps its size

Compound scaling (EfficientNet, arXiv 1905.11946): depth is multiplied by alpha, width by beta and the sides of
the input by gamma for every unit of phi. In a config it is one line, scale = dict(phi=2.0). The backbone must have the
arguments `width` and `depth`, as the native ones but ResNetVD do.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "scale",
        help="scale a config to other sizes, and print their cost",
        description="Scale the model of a config by one coefficient, and print parameters and FLOPs of each size.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--phi", type=float, nargs="+", required=True, help="coefficients; 0 is the config itself")
    parser.add_argument("--alpha", type=float, help="factor of depth per unit of phi (default 1.2)")
    parser.add_argument("--beta", type=float, help="factor of width per unit of phi (default 1.1)")
    parser.add_argument("--gamma", type=float, help="factor of the input's sides per unit of phi (default 1.15)")
    parser.add_argument("--out", metavar="DIR", help="write a config for each phi into this folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Scale the config, count parameters and FLOPs, and print a table."""
    from tqdm import tqdm

    from efftasks import apis
    from efftasks.bench.complexity import count_complexity
    from efftasks.bench.table import to_markdown
    from efftasks.linking.scaling import compound_scale

    factors = {name: getattr(args, name) for name in ("alpha", "beta", "gamma") if getattr(args, name) is not None}
    rows: list[dict[str, Any]] = []
    for phi in tqdm(args.phi, disable=len(args.phi) < 2, leave=False):
        rule = dict(phi=phi, **factors)
        cfg = apis.load_config(args.config, {"scale": rule})
        size = apis.input_size(cfg)
        model = apis.fuse(apis.build(cfg))
        cost = count_complexity(model, model.infer, size)
        scale = compound_scale(**rule)
        rows.append(
            {
                "phi": f"{phi:g}",
                "depth": scale.depth,
                "width": scale.width,
                "input": f"{size[0]}x{size[1]}",
                "params M": cost.params_m,
                "GFLOPs": cost.gflops,
                "activations M": cost.activations_m,
            }
        )
        if args.out:
            rows[-1]["config"] = str(_write(args.config, rule, Path(args.out)))
    print(to_markdown(rows, list(rows[0])))
    return 0


def _write(config: str, rule: dict[str, float], folder: Path) -> Path:
    from efftasks.apis import config_path

    base = config_path(config).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{base.stem}_phi{rule['phi']:g}.py"
    arguments = ", ".join(f"{key}={value!r}" for key, value in rule.items())
    path.write_text(
        f"# {base.stem}, scaled by one coefficient (EfficientNet, arXiv 1905.11946).\n"
        f'_base_ = ["{base.as_posix()}"]\n\nscale = dict({arguments})\n',
        encoding="utf-8",
    )
    return path
