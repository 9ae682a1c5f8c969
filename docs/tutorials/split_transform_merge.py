# %% [markdown]
"""
# Split, transform, merge

Split, transform, merge against dense: the same detector on three RegNets, trained and timed.

The first has the published 3x3 in groups of 8. The other two have dense 3x3s, made narrower until their backbone has
the first one's parameters, or its FLOPs. [Results](split_transform_merge.md).

    python docs/tutorials/split_transform_merge.py --data-root data/bccd/ --out work_dirs/stm
"""

# %%
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from efftasks import apis
from efftasks.bench.complexity import Complexity, count_complexity
from efftasks.bench.engines import file_call, torch_call
from efftasks.bench.environment import describe_environment
from efftasks.bench.latency import measure
from efftasks.bench.table import to_markdown, write_report
from efftasks.compression.folding import inference_model
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph
from efftasks.models.backbones.regnet import RegNet

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320"
DENSE = 10_000  # wider than any stage: one group
COLUMNS = ("backbone", "width", "params M", "GFLOPs", "AP", "AP50")


# %% [markdown]
"""
## Networks of equal cost

The dense networks are made narrower until they have as many parameters, or FLOPs.
"""


# %%
def cost(options: dict[str, Any], size: tuple[int, int]) -> Complexity:
    """Parameters and FLOPs of the fused backbone."""
    net = inference_model(RegNet(**options))
    return count_complexity(net, net, size)


def matched_width(target: float, measured: Callable[[Complexity], float], size: tuple[int, int]) -> float:
    """The width factor at which the dense network costs ``target``, by bisection."""
    low, high = 0.2, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        value = measured(cost(dict(group_width=DENSE, width=middle), size))
        low, high = (middle, high) if value < target else (low, middle)
    return low


# %% [markdown]
"""
## Training and timing
"""


# %%
def train(options: dict[str, Any], args: argparse.Namespace, work_dir: Path) -> dict[str, float]:
    """Train the detector on this backbone; its metrics after the last epoch."""
    epochs = {"train_cfg.max_epochs": args.epochs, "train_cfg.val_interval": args.epochs}
    epochs["param_scheduler.1.T_max"] = args.epochs
    cfg = apis.load_config(CONFIG, {"data_root": args.data_root, **epochs})
    cfg.model.backbone = dict(type="RegNet", **options)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=args.seed)
    runner = apis.train(cfg)
    return runner.val_loop.run()


def calls(options: dict[str, Any], size: tuple[int, int], folder: Path) -> dict[str, Callable[[], float]]:
    """Functions that time one pass of the detector, one per runtime."""
    cfg = apis.load_config(CONFIG)
    cfg.model.backbone = dict(type="RegNet", **options)
    model = apis.fuse(apis.build(cfg))
    path = write_graph(Graph(model), torch.zeros(1, 3, *size), folder / f"{len(list(folder.iterdir()))}.onnx")
    files = {engine: file_call(engine, path, size) for engine in ("onnxruntime", "openvino")}
    return {"torch": torch_call(model.infer, size), **files}


# %% [markdown]
"""
## All steps
"""


# %%
def main(arguments: Sequence[str] | None = None) -> None:
    """Match the widths, train and time the networks, and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data-root", default="data/bccd/")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/split_transform_merge"))
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    size = apis.input_size(apis.load_config(CONFIG))

    split = cost({}, size)
    networks: dict[str, dict[str, Any]] = {
        "split, groups of 8": dict(width=1.0),
        "dense, same parameters": dict(width=matched_width(split.params_m, lambda c: c.params_m, size)),
        "dense, same FLOPs": dict(width=matched_width(split.gflops, lambda c: c.gflops, size)),
    }
    rows: list[dict[str, Any]] = []
    timed: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, options) in enumerate(networks.items()):
            if i:
                options["group_width"] = DENSE
            complexity = cost(options, size)
            row = {
                "backbone": name,
                "width": options["width"],
                "params M": complexity.params_m,
                "GFLOPs": complexity.gflops,
            }
            metrics = train(options, args, args.out / f"{i}")
            rows.append({**row, "AP": metrics["coco/bbox_mAP"], "AP50": metrics["coco/bbox_mAP_50"]})
            timed.update({f"{i} {engine}": call for engine, call in calls(options, size, Path(folder)).items()})
        times = measure(timed, runs=args.runs)
    for key, stats in times.items():
        number, engine = key.split(" ")
        rows[int(number)][f"{engine} ms"] = stats.p50
        rows[int(number)][f"{engine} p90"] = stats.p90
    columns = [*COLUMNS, *(f"{engine} ms" for engine in ("torch", "onnxruntime", "openvino"))]
    print(to_markdown(rows, columns))
    write_report(args.out / "table", rows, columns, describe_environment())


# %% tags=["active-py"]
if __name__ == "__main__":
    main()

# %% [markdown]
"""
## Run it

The arguments are those of the script. What is done stays in the folder: after an interruption run the cell again.
"""

# %% tags=["active-ipynb", "parameters"]
# arguments = ["--data-root", "data/bccd/", "--out", "work_dirs/stm"]

# %% tags=["active-ipynb"]
# main(arguments)
