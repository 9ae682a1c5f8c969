"""A network, a data set and a runner so small that a whole training takes a fraction of a second.

Run as a program it trains in the folder it is given; ``--limit BYTES`` lets no file grow larger, as a full disk would.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
from pathlib import Path
from typing import Any

import efftasks.compat  # noqa: F401

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_rank
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from efftasks.cli.errors import explain
from efftasks.engine.runner import EffRunner


class Network(BaseModel):
    """Convolutions, a batch norm and dropout; it keeps its losses and the weights it was scored with."""

    def __init__(self, width: int = 4, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.3)
        self.mid = nn.Conv2d(width, width, 3, bias=False)
        self.out = nn.Conv2d(width, classes, 1)
        self.losses: list[float] = []
        self.progress: list[float] = []
        self.scored: list[dict[str, Tensor]] = []

    def set_progress(self, fraction: float) -> None:
        self.progress.append(fraction)

    def forward(self, inputs: list[Tensor], data_samples: Any = None, mode: str = "tensor") -> Any:
        x = torch.stack(list(inputs))
        y = self.out(self.mid(self.drop(self.norm(self.stem(x)).relu()))).mean((2, 3))
        if mode == "loss":
            loss = (y - x.mean()).square().mean()
            self.losses.append(loss.item())
            return dict(loss=loss)
        self.scored.append({key: value.clone() for key, value in self.state_dict().items()})
        return [y]


class Noise:
    """Adds noise from all three generators, and some of an image it has seen, as a cached mosaic does."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, info: dict) -> dict:
        generator = torch.Generator().manual_seed(info["seed"])
        image = torch.randn(3, 8, 8, generator=generator)
        self.seen = [*self.seen, image][-5:]
        other = self.seen[np.random.randint(len(self.seen))]
        sample = BaseDataElement(metainfo=dict(skipped_files=info["skipped"]))
        return dict(inputs=image + 0.3 * other + 0.1 * torch.randn(1) + 0.1 * random.random(), data_samples=sample)


class Data(BaseDataset):
    METAINFO = dict(classes=("a", "b"))

    def __init__(self, size: int, skipped: tuple[str, ...] = ()) -> None:
        self.size, self.skipped = size, skipped
        super().__init__(pipeline=[Noise()])

    def load_data_list(self) -> list[dict]:
        return [dict(seed=i, skipped=self.skipped if i == 0 else ()) for i in range(self.size)]


class Score(BaseMetric):
    """Gives the scores it was told to."""

    default_prefix = "toy"

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(score=self.scores.pop(0) if self.scores else 0.5)


class Record(Hook):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.states.append({key: value.clone() for key, value in runner.model.state_dict().items()})


_RUNS = itertools.count()
EMA = dict(type="EMAHook", ema_type="mmdet.ExpMomentumEMA", momentum=0.01, gamma=5, update_buffers=True)


def make_runner(
    work_dir: Path,
    epochs: int = 4,
    workers: int = 0,
    scores: list[float] | None = None,
    skipped: tuple[str, ...] = (),
    hooks: tuple = (),
    **options: Any,
) -> EffRunner:
    """A runner over 12 images in batches of 3, with Muon, a cosine, an average and checkpoints."""
    torch.manual_seed(options.pop("init_seed", 0))
    loaders = [
        dict(batch_size=3, num_workers=workers, sampler=dict(type="DefaultSampler", shuffle=train), dataset=data)
        for train, data in ((True, Data(12, skipped)), (False, Data(3)))
    ]
    checkpoint = dict(type="SafeCheckpointHook", max_keep_ckpts=9, save_best="toy/score")
    settings: dict[str, Any] = dict(
        model=Network(),
        work_dir=str(work_dir),
        train_dataloader=loaders[0],
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_dataloader=loaders[1],
        val_cfg=dict(),
        val_evaluator=Evaluator([Score(scores or [])]),
        optim_wrapper=dict(constructor="MuonConstructor", optimizer=dict(type="MuonAdamW", lr=1e-3)),
        param_scheduler=[dict(type="CosineAnnealingLR", T_max=6, by_epoch=True, convert_to_iter_based=True)],
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[
            dict(type="EpochSeed"),
            dict(type="TrainingProgress"),
            dict(type="ReportSkippedImages"),
            EMA,
            *hooks,
        ],
        randomness=dict(seed=0),
        experiment_name=f"toy-{next(_RUNS)}",  # runs of one name would share their message hub
        default_scope="efftasks",
        log_level="WARNING",
    )
    return EffRunner(**{**settings, **options})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--launcher", default="none")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    if args.limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.limit, args.limit))
    rank = get_rank()
    runner = make_runner(
        args.work_dir,
        epochs=2,
        init_seed=rank,
        skipped=("lost.png",),
        launcher=args.launcher,
        resume=args.resume,
        env_cfg=dict(dist_cfg=dict(backend="gloo")),
        cfg=dict(),
    )
    try:
        runner.train()
    except Exception as error:
        raise SystemExit(explain(error).sentence) from error
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    average = next(hook.ema_model for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    mine = {**model.state_dict(), **{f"average.{key}": value for key, value in average.state_dict().items()}}
    everyone = all_gather_object((mine, model.losses))
    if get_rank() == 0:
        differing = [key for key in mine if any(not torch.equal(mine[key], other[key]) for other, _ in everyone)]
        print("processes:", len(everyone), "differing:", differing)
        print("same losses:", len(everyone) > 1 and everyone[0][1] == everyone[1][1])


if __name__ == "__main__":
    main()
