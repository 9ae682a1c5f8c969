"""``efftasks quickstart``: train, test, export and verify on the built-in data set, and write a report."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from efftasks.cli import benchmark, dataset, export, test, train
from efftasks.cli.parser import parser_of


class Task(NamedTuple):
    """The config, data and metric of a task."""

    config: str
    data: str  # subfolder of the built-in data set
    metric: str
    name: str
    minimum: float  # of the metric; less is a failure
    epochs: int
    lead: str


TASKS = {
    "det": Task(
        "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128",
        "",
        "coco/bbox_mAP",
        "AP",
        0.1,
        12,
        "An NMS-free detector, trained from scratch on the built-in shapes and exported to a file that runs without "
        "PyTorch. Every figure below was measured in this run.",
    ),
    "insseg": Task(
        "o2oseg-n_mobilenetv4-conv-s_1xb16-18e_shapes-128",
        "",
        "coco/segm_mAP",
        "mask AP",
        0.1,
        12,
        "An NMS-free instance segmenter, trained from scratch on the built-in shapes and exported to a file that gives "
        "a mask for each object and runs without PyTorch. Every figure below was measured in this run.",
    ),
    "pose": Task(
        "o2opose-n_mobilenetv4-conv-s_1xb16-18e_shapes-128",
        "",
        "coco/keypoints_mAP",
        "keypoint AP",
        0.05,
        16,
        "An NMS-free pose estimator, trained from scratch on the built-in shapes and exported to a file that gives the "
        "keypoints of each object and runs without PyTorch. Every figure below was measured in this run.",
    ),
    "semseg": Task(
        "fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128",
        "cityscapes/",
        "mIoU",
        "mIoU (%)",
        20.0,
        12,
        "A semantic segmenter, trained from scratch on the built-in shapes and exported to a file that gives a class "
        "for each pixel and runs without PyTorch. Every figure below was measured in this run.",
    ),
}

EXAMPLES = """examples:
  efftasks quickstart
  efftasks quickstart --task insseg                          instance masks; or pose, or semseg
  efftasks quickstart --out work_dirs/first --epochs 10      quicker, less accurate

Writes the built-in data set, trains, tests, exports and verifies a detector (or a model for another --task), tests the
exported file, measures both, and leaves index.html, metrics.json, model.onnx and model.json in --out.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "quickstart",
        help="train, test, export, verify and report, end to end",
        description="Train, test, export and verify on the built-in shapes: some minutes on two cores.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", choices=tuple(TASKS), default="det", help="default: det")
    parser.add_argument("--out", default="work_dirs/quickstart", help="folder (default: work_dirs/quickstart)")
    parser.add_argument("--epochs", type=int, help="number of epochs (default: 12, for pose 16)")
    parser.add_argument("--train", type=int, default=800, help="images to train on (default 800)")
    parser.add_argument("--val", type=int, default=100, help="images to validate on (default 100)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run all steps with the commands that a user would type, and write the report."""
    from efftasks.structures.errors import UserError, WorkError

    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs: got {args.epochs}, expected an integer from 1")
    out = Path(args.out)
    parser = parser_of((dataset, train, test, export, benchmark))
    commands = _commands(args, out)
    seconds: dict[str, float] = {}
    for number, (step, words) in enumerate(commands.items(), start=1):
        print(f"\n=== {number}/{len(commands)} {step}: efftasks {' '.join(words)}", flush=True)
        start = time.perf_counter()
        step_args = parser.parse_args(words)
        code = step_args.run(step_args)
        if code != 0:
            raise WorkError(f"quickstart stopped at step {number}, {step} (exit code {code})")
        seconds[step] = time.perf_counter() - start
    task = TASKS[args.task]
    page = _report(task, out, commands, seconds)
    print(f"\n{page}")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    check_learned(task, metrics[task.metric], args.epochs)
    return 0


def check_learned(task: Task, value: float, epochs: int | None) -> None:
    """Fail if the model has learned nothing.

    Raises:
        WorkError: the metric is below the minimum of the task, or nan.
    """
    from efftasks.structures.errors import WorkError

    if not value >= task.minimum:
        few = "" if epochs is None else f"; {epochs} epochs may be too few, leave --epochs out for the usual number"
        raise WorkError(f"the {task.name} is {value:.3g}, expected {task.minimum:g} at least: nothing was learned{few}")


def _commands(args: argparse.Namespace, out: Path) -> dict[str, list[str]]:
    from efftasks.apis.formats import suffix_of
    from efftasks.export.exporters.table import EXPORTERS

    task, data = TASKS[args.task], out / "shapes"
    options = [f"data_root={data}/{task.data}"]
    epochs = ["--epochs", str(args.epochs or task.epochs)]
    exporter = next(iter(EXPORTERS.values()))
    checkpoint, artifact = str(out / "train" / "best.pth"), str(out / f"model{suffix_of(exporter)}")
    overrides = ["--cfg-options", *options]
    sizes = ["--train", str(args.train), "--val", str(args.val)]
    return {
        "data": ["dataset", "shapes", "--out", str(data), *sizes],
        "train": ["train", task.config, "--amp", *epochs, "--work-dir", str(out / "train"), *overrides],
        "test": ["test", task.config, checkpoint, "--out", str(out / "metrics_pytorch.json"), *overrides],
        "export": ["export", task.config, checkpoint, "--backend", exporter.name, "--out", str(out), *overrides],
        "test the file": [
            *("test", task.config, artifact, "--out", str(out / "metrics_artifact.json")),
            *("--show-dir", str(out / "pictures"), "--show-num", "12", *overrides),
        ],
        "benchmark": ["benchmark", artifact, task.config, "--out", str(out / "latency"), "--runs", "50"],
    }


def _report(task: Task, out: Path, commands: dict[str, list[str]], seconds: dict[str, float]) -> Path:
    from efftasks.bench.run_report import RunReport, draw_curves, read_scalars, write_page
    from efftasks.checkpoints.files import read_checkpoint
    from efftasks.export.exporters.table import EXPORTERS

    pytorch, artifact, latency = (
        json.loads((out / name).read_text(encoding="utf-8"))
        for name in ("metrics_pytorch.json", "metrics_artifact.json", "latency.json")
    )
    sidecar = json.loads((out / "model.json").read_text(encoding="utf-8"))
    verify, backend = sidecar["verify"], EXPORTERS[sidecar["backend"]].backend
    precision = read_checkpoint(out / "train" / "best.pth")["meta"].get("precision", "mixed precision")
    network = next(row for row in latency if row["backend"] == "torch")
    runtime = next(row for row in latency if row["backend"] == backend)
    metrics = {
        **artifact,
        **{f"pytorch/{key}": value for key, value in pytorch.items()},
        "params_m": network["params M"],
        "gflops": network["GFLOPs"],
        "latency_p50_ms": runtime["p50 ms"],
        **{f"seconds/{step}": round(value, 1) for step, value in seconds.items()},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    draw_curves(read_scalars(out / "train"), out / "curves.svg")
    keys = list(artifact)
    report = RunReport(
        title="efftasks quickstart",
        lead=task.lead,
        cards={
            f"{task.name} of the file": f"{artifact[task.metric]:.4g}",
            f"{task.name} of the PyTorch model": f"{pytorch[task.metric]:.4g}",
            "file against model": "verified" if verify["passed"] else "FAILED",
            "parameters": f"{network['params M']:.2f} M",
            "operations": f"{network['GFLOPs']:.2f} GFLOPs",
            "trained in": precision,
            f"latency, {backend}": f"{runtime['p50 ms']:.1f} ms",
        },
        tables={
            "Accuracy": (
                ("metric", "PyTorch", "file", "difference"),
                [(key, pytorch[key], artifact[key], abs(pytorch[key] - artifact[key])) for key in keys],
            ),
            "Latency": _latency_table(latency),
            "Verification": (("what", "value"), [(k, v) for k, v in verify.items() if not isinstance(v, dict)]),
            "Time": (("step", "seconds"), list(seconds.items())),
        },
        curves="curves.svg",
        pictures=[str(path.relative_to(out)) for path in sorted((out / "pictures").glob("*.png"))],
        commands=[f"efftasks {' '.join(words)}" for words in commands.values()],
        environment=latency[0]["environment"],
    )
    return write_page(report, out / "index.html")


def _latency_table(rows: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[Any]]]:
    from efftasks.bench.rows import COLUMNS

    return COLUMNS, [[row.get(column, "") for column in COLUMNS] for row in rows]
