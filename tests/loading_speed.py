"""Samples a second that training pipelines give, of two checkouts that take turns, each in one process.

    python tests/loading_speed.py BEFORE AFTER --case CONFIG DATA_ROOT --case CONFIG DATA_ROOT:1 --rounds 15

BEFORE and AFTER are roots of checkouts. ``:N`` takes the N-th pipeline that training switches to instead of the first
one. Printed are medians, and the median of the rounds' ratios with the least and the largest: by the time of the CPU,
which other programs disturb less, and by that of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any


def serve() -> None:
    """In one checkout: answer each line of JSON, a case and what to draw, with seconds of the CPU and of the clock."""
    import efftasks.compat

    # isort: split
    import cv2
    import numpy as np
    import torch
    from mmengine.registry import DefaultScope
    from mmengine.runner import set_random_seed

    from efftasks.apis import load_config
    from efftasks.registry import DATASETS

    assert efftasks.compat
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    DefaultScope.get_instance("loading-speed", scope_name="efftasks")
    datasets: dict[str, Any] = {}
    for line in sys.stdin:
        (config, root), seed, count = json.loads(line)
        key = f"{config} {root}"
        if key not in datasets:
            folder, _, switch = root.partition(":")
            cfg = load_config(config, {"data_root": folder, "classes": class_names(folder)})
            dataset = dict(cfg.train_dataloader.dataset)
            if switch:
                hooks = [*(cfg.get("custom_hooks") or ()), *(cfg.get("default_hooks") or {}).values()]
                switched = [hook["switch_pipeline"] for hook in hooks if hook and hook.get("switch_pipeline")]
                dataset["pipeline"] = switched[int(switch) - 1]
            datasets[key] = DATASETS.build(dataset)
        set_random_seed(seed)
        order = np.random.RandomState(seed).permutation(len(datasets[key]))
        clock, cpu = time.perf_counter(), time.process_time()
        for i in range(count):
            datasets[key][int(order[i % len(order)])]
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - clock]), flush=True)


def class_names(root: str) -> list[str]:
    """The categories of the training annotations, for configs that name others."""
    with open(os.path.join(root, "annotations", "train.json"), encoding="utf-8") as file:
        return [category["name"] for category in json.load(file)["categories"]]


def ask(tree: subprocess.Popen[str], case: list[str], seed: int, count: int) -> list[float]:
    """Let a checkout load some samples: seconds of the CPU and of the clock."""
    assert tree.stdin is not None and tree.stdout is not None
    print(json.dumps([case, seed, count]), file=tree.stdin, flush=True)
    for line in tree.stdout:
        if line.startswith("["):
            return json.loads(line)
    raise SystemExit("a checkout ended, see above")


def main() -> None:
    """Start both checkouts and let them take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, metavar="ROOT")
    parser.add_argument("--case", nargs=2, action="append", required=True, metavar=("CONFIG", "DATA_ROOT"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=40, help="samples a round")
    args = parser.parse_args()
    trees = []
    for root in args.trees:
        env = dict(os.environ, PYTHONPATH=root, OMP_NUM_THREADS="1")
        command = [sys.executable, "-W", "ignore", os.path.abspath(__file__), "serve"]
        trees.append(subprocess.Popen(command, cwd=root, env=env, text=True, stdin=subprocess.PIPE, stdout=-1))
    for case in args.case:
        rows = []
        for seed in range(args.rounds + 1):
            turn = trees if seed % 2 else trees[::-1]
            taken = {tree.pid: ask(tree, case, seed, args.count) for tree in turn}
            rows.append([taken[tree.pid] for tree in trees])
        print(*case)
        for i, what in enumerate(("CPU", "clock")):
            before, after = ([args.count / row[j][i] for row in rows[1:]] for j in (0, 1))  # the first one warms up
            ratios = sorted(b / a for a, b in zip(before, after))
            print(
                f"  {what}: {statistics.median(before):.1f} and {statistics.median(after):.1f} samples/s, ratio "
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )
    for tree in trees:
        tree.communicate()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
