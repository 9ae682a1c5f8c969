# %% [markdown]
"""
# Distillation

Students with and without a teacher, over several seeds: what each term of a distillation brings.

The teacher is trained first. Runs that are finished are not repeated, and an interrupted one is resumed, so that the
same command continues after an interruption. The table is printed and written at the end. Results are
in the [benchmark](../benchmarks/compression_cpu-2-cores_torch-2.13_2026-11-29.md#distillation).

    python docs/tutorials/distillation.py bccd --data-root data/bccd/ --out work_dirs/distil
    python docs/tutorials/distillation.py camvid --data-root data/camvid/ --out work_dirs/distil
"""

# %%
from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from efftasks.bench.environment import describe_environment

# %% [markdown]
"""
## What is compared
"""


# %%
class Experiment(NamedTuple):
    """What is trained on a data set."""

    student: str  # a config with a guide
    teacher: str
    terms: tuple[str, ...]  # of the guide
    metric: str
    to_percent: float  # factor on the metric: mAP is in 0..1, mIoU in percent
    epochs: int
    more: tuple[str, ...] = ()  # another option, with all terms


EXPERIMENTS = {
    "bccd": Experiment(
        "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_distil",
        "o2o-s_mobilenetv4-conv-s_1xb8-48e_bccd-320_teacher",
        ("maps", "one_to_many"),
        "bbox_mAP",
        100,
        24,
        ("model.guide.fade=None",),
    ),
    "camvid": Experiment(
        "fpnlite-n_mobilenetv4-conv-s_1xb8-40e_camvid-480_distil",
        "fpnlite-s_mobilenetv4-conv-s_1xb8-40e_camvid-480_teacher",
        ("logits", "maps"),
        "mIoU",
        1,
        12,
    ),
}


# %% [markdown]
"""
## Training, testing, and the table
"""


# %%
class Result(NamedTuple):
    """A trained network."""

    metric: float
    seconds: float  # of training, with validation, without interrupted parts


def variants(experiment: Experiment) -> dict[str, list[str]]:
    """Options of the student's config by name: without a guide, with each term alone, with all, and what is more."""
    off = {term: f"model.guide.terms.{term}=None" for term in experiment.terms}
    alone = {term: [option for name, option in off.items() if name != term] for term in experiment.terms}
    more = {f"all, {option.removeprefix('model.guide.')}": [option] for option in experiment.more}
    return {"none": ["model.guide=None"], **alone, "all": [], **more}


def run(config: str, work_dir: Path, epochs: int, metric: str, arguments: list[str], options: list[str]) -> Result:
    """Train and test a config, or what is left of it."""
    done = work_dir / "result.json"
    if not done.is_file():
        start = time.monotonic()
        efftasks = [sys.executable, "-m", "efftasks"]
        common = ["--skip-check", "--cfg-options", *options]
        train = [*efftasks, "train", config, "--work-dir", str(work_dir), "--resume", "--epochs", str(epochs)]
        subprocess.run([*train, *arguments, *common], check=True)
        seconds = time.monotonic() - start
        metrics = work_dir / "metrics.json"
        checkpoint = work_dir / f"epoch_{epochs}.pth"
        subprocess.run([*efftasks, "test", config, str(checkpoint), "--out", str(metrics), *common], check=True)
        values = json.loads(metrics.read_text(encoding="utf-8"))
        (value,) = (value for name, value in values.items() if name.rpartition("/")[2] == metric)
        done.write_text(json.dumps(Result(value, seconds)), encoding="utf-8")
    return Result(*json.loads(done.read_text(encoding="utf-8")))


def table(experiment: Experiment, teacher: Result, results: dict[str, list[Result]]) -> str:
    """The results as Markdown, in percent; differences are of runs with equal seeds."""
    seeds, scale = len(results["none"]), experiment.to_percent
    columns = ["terms", *(f"seed {i}" for i in range(seeds)), "mean", "gain", "deviation of the gain", "minutes"]
    rows = [columns, ["---"] * len(columns)]
    for name, runs in results.items():
        values = [scale * run.metric for run in runs]
        gains = [value - scale * plain.metric for value, plain in zip(values, results["none"])]
        spread = statistics.stdev(gains) if seeds > 1 else 0.0
        minutes = statistics.mean(run.seconds for run in runs) / 60
        numbers = [*values, statistics.mean(values), statistics.mean(gains), spread, minutes]
        rows.append([name, *(f"{number:.1f}" for number in numbers)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    teacher_row = f"Teacher `{experiment.teacher}`: {scale * teacher.metric:.1f} in {teacher.seconds / 60:.1f} minutes."
    return "\n".join([f"`{experiment.student}`, {experiment.metric}. {teacher_row}", "", *lines, ""])


# %% [markdown]
"""
## All steps
"""


# %%
def main(arguments: Sequence[str] | None = None) -> None:
    """Train all, and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("experiment", choices=tuple(EXPERIMENTS))
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of the students")
    parser.add_argument("--teacher-epochs", type=int, help="default: twice those of the students")
    parser.add_argument("--only", nargs="+", help="names of terms, none or all")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    args = parser.parse_args(arguments)
    experiment = EXPERIMENTS[args.experiment]
    out = args.out / args.experiment
    epochs = args.epochs or experiment.epochs
    arguments = [] if args.threads is None else ["--threads", str(args.threads)]
    data = [f"data_root={args.data_root}"]
    teacher_epochs = args.teacher_epochs or 2 * epochs
    teacher = run(experiment.teacher, out / "teacher", teacher_epochs, experiment.metric, arguments, data)
    weights = f"teacher_weights={out / 'teacher' / f'epoch_{teacher_epochs}.pth'}"
    results: dict[str, list[Result]] = {}
    chosen = {name: x for name, x in variants(experiment).items() if not args.only or name in ("none", *args.only)}
    for seed in range(args.seeds):  # all variants of a seed first, so that a partial table is fair
        for name, options in chosen.items():
            common = [*data, f"randomness.seed={seed}", *([] if name == "none" else [weights]), *options]
            work_dir = out / f"{name.replace(', ', '-')}-{seed}"
            results.setdefault(name, []).append(
                run(experiment.student, work_dir, epochs, experiment.metric, arguments, common)
            )
        text = table(experiment, teacher, results)
        (out / "table.md").write_text(text, encoding="utf-8")
        print(text)
    print(json.dumps(describe_environment(), indent=2))


# %% tags=["active-py"]
if __name__ == "__main__":
    main()

# %% [markdown]
"""
## Run it

The arguments are those of the script. What is done stays in the folder: after an interruption run the cell again.
"""

# %% tags=["active-ipynb", "parameters"]
# arguments = ["bccd", "--data-root", "data/bccd/", "--out", "work_dirs/distil"]

# %% tags=["active-ipynb"]
# main(arguments)
