# %% [markdown]
"""
# Early exits

Dynamic depth: a detector with an early exit, its easy and its hard images, and what each gate knows of them.

A detector with an exit is trained, then each gate on the finished detector. For many thresholds the images that exit
get the early answer and the others the late one; the average precision is compared with that of as many images chosen
at random. What is done stays in the folder: the same command goes on where it was interrupted.
[Results](early_exit.md).

    python docs/tutorials/early_exit.py --data-root data/bccd/ --out work_dirs/early_exit
"""

# %%
from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch

from efftasks import apis
from efftasks.bench.environment import describe_environment
from efftasks.bench.table import to_markdown, write_report
from efftasks.imaging.drawing import contact_sheet
from efftasks.imaging.prediction import Prediction
from efftasks.models.exits.gates import ConfidenceGate

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_exit"
GATES = ("ConfidenceGate", "LossGate", "AgreementGate")
NEVER = 1.01
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, NEVER)
COLUMNS = ("gate", "threshold", "exit rate", "AP", "AP at random")
Answers = dict[str, Prediction]  # path of an image -> answer


# %% [markdown]
"""
## The detector and its gates

The exit is trained with the detector, a gate on the finished detector.
"""


# %%
def trained(args: argparse.Namespace, folder: Path, epochs: int, options: Mapping[str, Any]) -> Path:
    """The last checkpoint of a training in a folder, which is done where it is not yet."""
    last = folder / f"epoch_{epochs}.pth"
    if not last.is_file():
        cfg = apis.load_config(args.config, {"data_root": args.data_root, "max_epochs": epochs, **options})
        cfg.work_dir = str(folder)
        cfg.randomness = dict(seed=args.seed)
        apis.train(cfg, amp=args.amp, resume="auto" if list(folder.glob("epoch_*.pth")) else None)
    return last


def with_gate(args: argparse.Namespace, gate: str, detector: Path) -> Any:
    """The finished detector with a gate, trained or calibrated on the training images."""
    if gate != "ConfidenceGate":
        options = {"model.early_exit.gate": dict(type=gate), "model.early_exit.train_only": "gate"}
        options |= {"train_cfg.val_interval": args.gate_epochs, "load_from": str(detector)}
        checkpoint = trained(args, args.out / gate, args.gate_epochs, options)
        cfg = apis.load_config(args.config, {"data_root": args.data_root, "model.early_exit.gate": dict(type=gate)})
        return apis.load(cfg, checkpoint)
    cfg = apis.load_config(args.config, {"data_root": args.data_root})
    model: Any = apis.load(cfg, detector)
    model.early_exit.gate = ConfidenceGate([]).eval()  # it learns nothing, and gives the quality itself at first
    cfg.test_dataloader.dataset.update(ann_file=cfg.train_dataloader.dataset.ann_file)
    cfg.test_dataloader.dataset.update(data_prefix=cfg.train_dataloader.dataset.data_prefix)
    qualities = [answer.exit_score for answer in answers(model, apis.test_images(cfg), 0.0).values()]
    model.early_exit.gate.calibrate(torch.tensor(qualities))
    return model


# %% [markdown]
"""
## The curve

For each threshold the images that exit get the early answer, the others the late one.
"""


# %%
def answers(model: Any, infos: Sequence[Any], threshold: float) -> Answers:
    """The answers of a model with a threshold."""
    model.exits_early.exit_threshold = threshold
    predictions = apis.predict(model, list(infos))
    return {info["img_path"]: prediction for info, prediction in zip(infos, predictions)}


def precision(cfg: Any, chosen: Answers, classes: Sequence[str]) -> float:
    """AP of answers in points of 100."""
    result = apis.evaluate(cfg, lambda infos: [chosen[info["img_path"]] for info in infos], classes, check=False)
    return 100 * result.metrics["coco/bbox_mAP"]


def curve(args: argparse.Namespace, gate: str, cfg: Any, model: Any) -> tuple[list[dict[str, Any]], Answers, Answers]:
    """A row for each threshold, and both answers of all images."""
    infos = apis.test_images(cfg)
    classes = model.dataset_meta["classes"]
    early, late = answers(model, infos, 0.0), answers(model, infos, NEVER)
    scores = {path: float(answer.exit_score or 0) for path, answer in early.items()}
    rows = []
    for threshold in THRESHOLDS:
        exits = [path for path, score in scores.items() if score >= threshold]
        mixed = {**late, **{path: early[path] for path in exits}}
        row = {"gate": gate, "threshold": threshold, "exit rate": len(exits) / len(scores)}
        drawn = [random.Random(seed).sample(sorted(scores), len(exits)) for seed in range(args.draws)]
        at_random = [precision(cfg, {**late, **{path: early[path] for path in paths}}, classes) for paths in drawn]
        row |= {"AP": precision(cfg, mixed, classes), "AP at random": sum(at_random) / len(at_random)}
        rows.append(row)
    return rows, early, late


# %% [markdown]
"""
## Pictures
"""


# %%
def sheet(early: Answers, late: Answers, path: Path, count: int = 4) -> None:
    """The images that leave first and those that leave last, two rows each: the early and the late answer."""
    order = sorted(early, key=lambda name: -float(early[name].exit_score or 0))
    rows = []
    for names in (order[:count], order[-count:]):
        for kind, chosen in (("early", early), ("late", late)):
            for name in names:
                picture = chosen[name].draw(score_thr=0.4)
                text = f"{kind}, score {early[name].exit_score:.2f}"
                cv2.putText(picture, text, (8, picture.shape[0] - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 5)
                cv2.putText(picture, text, (8, picture.shape[0] - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255,) * 3, 2)
                rows.append(picture)
    cv2.imwrite(str(path), contact_sheet(rows, columns=count, cell=320))


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """AP against the share of images that exit, a line for each gate, and one for images drawn at random."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="tight")
    axis = figure.subplots()
    for gate in dict.fromkeys(row["gate"] for row in table):
        rows = [row for row in table if row["gate"] == gate]
        axis.plot([row["exit rate"] for row in rows], [row["AP"] for row in rows], "o-", label=gate)
    rows = sorted(table, key=lambda row: row["exit rate"])
    axis.plot(
        [row["exit rate"] for row in rows], [row["AP at random"] for row in rows], "--", color="gray", label="random"
    )
    axis.set(xlabel="share of images that exit early", ylabel="AP")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


# %% [markdown]
"""
## All steps
"""


# %%
def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print and draw the table and the pictures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--data-root", default="data/bccd/")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/early_exit"))
    parser.add_argument("--checkpoint", type=Path, help="a trained detector with an exit, instead of training one")
    parser.add_argument("--epochs", type=int, default=48, help="of the detector and its exit")
    parser.add_argument("--gates", nargs="+", default=GATES, choices=GATES)
    parser.add_argument("--gate-epochs", type=int, default=8, help="of a gate alone")
    parser.add_argument("--draws", type=int, default=10, help="random choices of images for each exit rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    args = parser.parse_args(arguments)

    detector = args.checkpoint or trained(args, args.out / "detector", args.epochs, {})
    table: list[dict[str, Any]] = []
    cfg = apis.load_config(args.config, {"data_root": args.data_root})
    for gate in args.gates:
        rows, early, late = curve(args, gate, cfg, with_gate(args, gate, detector))
        table += rows
        sheet(early, late, args.out / f"exits_{gate}.jpg")
    print(to_markdown(table, COLUMNS))
    write_report(args.out / "table", table, COLUMNS, describe_environment(1))
    draw(table, args.out / "curve.png")
    print(f"{args.out}/table.md, {args.out}/curve.png, {args.out}/exits_*.jpg")


# %% tags=["active-py"]
if __name__ == "__main__":
    main()

# %% [markdown]
"""
## Run it

The arguments are those of the script. What is done stays in the folder: after an interruption run the cell again.
"""

# %% tags=["active-ipynb", "parameters"]
# arguments = ["--data-root", "data/bccd/", "--out", "work_dirs/early_exit"]

# %% tags=["active-ipynb"]
# main(arguments)

# %% tags=["active-ipynb"]
# from IPython.display import Image
#
# Image(filename="work_dirs/early_exit/curve.png")
