# %% [markdown]
"""
# Channel pruning

Channel pruning at several ratios: accuracy, FLOPs and measured time of one detector, dense and pruned.

The dense detector is trained, then pruned at each ratio and fine-tuned, and all are exported and timed in turn. What is
done stays in the folder: the same command goes on where it was interrupted. [Results](channel_pruning.md).

    python docs/tutorials/channel_pruning.py --data-root data/bccd/ --out work_dirs/channel_pruning
"""

# %%
from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from efftasks import apis
from efftasks.bench.complexity import count_complexity
from efftasks.bench.engines import file_call
from efftasks.bench.environment import describe_environment
from efftasks.bench.gap import add_gaps
from efftasks.bench.latency import measure
from efftasks.bench.table import to_markdown, write_report
from efftasks.export.exporters.onnx import write_graph
from efftasks.export.graph import Graph
from efftasks.registry import RUNNERS

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320"
COLUMNS = ("model", "backend", "AP", "AP50", "AP without tuning", "params M", "GFLOPs", "p50 ms", "min ms")
GAPS = ("speed-up", "FLOPs saved", "gap")


# %% [markdown]
"""
## Training and pruning

The dense detector is trained first. Each ratio starts from its checkpoint: `Prune` is a step of `model_transforms`,
which is applied when the model is built, and what follows is fine-tuning.
"""


# %%
def config_of(args: argparse.Namespace, work_dir: Path, epochs: int) -> Config:
    """The detector of the experiment, trained for some epochs."""
    options = {"data_root": args.data_root, "max_epochs": epochs, "train_cfg.val_interval": epochs}
    cfg = apis.load_config(args.config, {**options, **json.loads(args.options)})
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=args.seed)
    return cfg


def trained(cfg: Config, epochs: int, folder: Path, before: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Metrics after training, and those of ``before``; read from the folder if they are there."""
    done = folder / "metrics.json"
    if not done.is_file():
        start = folder / "before.json"
        if not start.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            start.write_text(json.dumps(before()), encoding="utf-8")
        runner = apis.train(
            cfg, threads=cfg.get("threads"), resume="auto" if list(folder.glob("epoch_*.pth")) else None
        )
        metrics = {**json.loads(start.read_text(encoding="utf-8")), **row_of(runner.val_loop.run())}
        done.write_text(json.dumps(metrics), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def row_of(metrics: dict[str, Any]) -> dict[str, float]:
    """AP and AP50 of a validation, in points of 100."""
    return {"AP": 100 * float(metrics["coco/bbox_mAP"]), "AP50": 100 * float(metrics["coco/bbox_mAP_50"])}


def one_shot(cfg: Config) -> dict[str, float]:
    """The AP of the pruned detector before fine-tuning."""
    cfg = Config(cfg.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = RUNNERS.get("EffRunner").from_cfg(cfg)
        return {"AP without tuning": row_of(runner.val())["AP"]}


def experiment(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train and prune; name of a folder -> metrics."""
    folder = args.out / "dense"
    rows = {}
    print(f"[1/{len(args.ratios) + 1}] dense", flush=True)
    rows["dense"] = trained(config_of(args, folder, args.epochs), args.epochs, folder, dict)
    checkpoint = folder / f"epoch_{args.epochs}.pth"
    for i, ratio in enumerate(args.ratios):
        name = f"ratio-{ratio:g}"
        print(f"[{i + 2}/{len(args.ratios) + 1}] {name}", flush=True)
        cfg = config_of(args, args.out / name, args.tune_epochs)
        cfg.load_from = str(checkpoint)
        optimizer = cfg.optim_wrapper.optimizer
        for key in ("lr", "muon_lr"):
            if key in optimizer:
                optimizer[key] *= args.lr_scale
        step = dict(type="Prune", ratio=ratio, importance=args.importance, scheme=args.scheme)
        cfg.model_transforms = [dict(step, round_to=args.round_to, recalibrate=args.recalibrate)]
        rows[name] = trained(cfg, args.tune_epochs, args.out / name, lambda cfg=cfg: one_shot(cfg))  # type: ignore[misc]
    return rows


# %% [markdown]
"""
## Measuring

All models are exported and timed in turn in one process, so that a busy machine slows all of them.
"""


# %%
def timed(args: argparse.Namespace, rows: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each model and runtime, all measured in turn."""
    table: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as out:
        for name, metrics in rows.items():
            epochs = args.epochs if name == "dense" else args.tune_epochs
            folder = args.out / name
            (file,) = folder.glob("*.py")
            model: Any = apis.fuse(apis.load(file, folder / f"epoch_{epochs}.pth"))
            size = apis.input_size(apis.load_config(file))
            cost = count_complexity(model, model.infer, size)
            path = write_graph(Graph(model), torch.zeros(1, 3, *size), Path(out) / f"{name}.onnx")
            for backend in args.backends:
                calls[str(len(table))] = file_call(backend, path, size, args.threads)
                row = {"model": name, "backend": backend, "input": f"{size[0]}x{size[1]}", **metrics}
                table.append({**row, "params M": cost.params_m, "GFLOPs": cost.gflops})
        for key, stats in measure(calls, runs=args.runs).items():
            table[int(key)].update({"p50 ms": stats.p50, "p90 ms": stats.p90, "min ms": stats.minimum})
    add_gaps(table, "dense")
    return table


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """AP against time, and speed-up against saved FLOPs, a line for each runtime."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="tight")
    left, right = figure.subplots(1, 2)
    for backend in dict.fromkeys(row["backend"] for row in table):
        rows = [row for row in table if row["backend"] == backend]
        left.plot([row["p50 ms"] for row in rows], [row["AP"] for row in rows], "o-", label=backend)
        for row in rows:
            label = row["model"].removeprefix("ratio-")
            left.annotate(label, (row["p50 ms"], row["AP"]), (3, 4), textcoords="offset points", fontsize=7)
        dense = rows[0]
        flops, speed = zip(*((dense["GFLOPs"] / row["GFLOPs"], dense["p50 ms"] / row["p50 ms"]) for row in rows))
        right.plot(flops, speed, "o-", label=backend)
    most = max(table[0]["GFLOPs"] / row["GFLOPs"] for row in table)
    right.plot([1, most], [1, most], "--", color="gray", label="time as FLOPs")
    left.set(xlabel="median ms", ylabel="AP", title="accuracy and time")
    right.set(xlabel="times fewer FLOPs", ylabel="times faster", title="FLOPs and time")
    for axis in (left, right):
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


# %% [markdown]
"""
## All steps
"""


# %%
def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print and draw the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--data-root", default="data/bccd/")
    parser.add_argument("--options", default="{}", help="overrides of the config, as JSON")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/channel_pruning"))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7, 0.85])
    parser.add_argument("--importance", default="taylor", choices=("magnitude", "bn_scale", "taylor"))
    parser.add_argument("--scheme", default="global", choices=("uniform", "global", "isomorphic"))
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--recalibrate", type=int, default=16, help="batches for the statistics of batch norms")
    parser.add_argument("--epochs", type=int, default=48, help="of the dense model")
    parser.add_argument("--tune-epochs", type=int, default=12, help="after pruning")
    parser.add_argument("--lr-scale", type=float, default=0.3, help="of the learning rates after pruning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--threads", type=int, default=1, help="of the runtimes")
    parser.add_argument("--runs", type=int, default=200)
    args = parser.parse_args(arguments)

    table = timed(args, experiment(args))
    columns = [*COLUMNS, *GAPS]
    print(to_markdown(table, columns))
    write_report(args.out / "table", table, columns, describe_environment(args.threads))
    draw(table, args.out / "plot.png")
    print(f"{args.out}/table.md, {args.out}/plot.png")


# %% tags=["active-py"]
if __name__ == "__main__":
    main()

# %% [markdown]
"""
## Run it

The arguments are those of the script. What is done stays in the folder: after an interruption run the cell again.
"""

# %% tags=["active-ipynb", "parameters"]
# arguments = ["--data-root", "data/bccd/", "--out", "work_dirs/channel_pruning"]

# %% tags=["active-ipynb"]
# main(arguments)

# %% tags=["active-ipynb"]
# from IPython.display import Image
#
# Image(filename="work_dirs/channel_pruning/plot.png")
