"""Whether a refactoring moved a number: losses of two training steps and outputs of exported files, of every config.

    python tests/same_numbers.py record before.json       at the root of a checkout of the commit before
    python tests/same_numbers.py record after.json        at the root of one of the commit after
    python tests/same_numbers.py compare before.json after.json

`record` takes every shipped config but the sizes l and x, on the four pictures and the small input of the config sweep
(`tests/contracts/test_configs.py`), with one thread. It writes down what the transforms give (a digest of the images),
the losses of both steps, a digest of all parameters and buffers afterwards, and, of the first config of each method
but `compress/`, what its exported file infers from one picture. `compare` exits with 1 where anything differs by a bit.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path.cwd()))

import efftasks.compat

# isort: split
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import set_random_seed
from tqdm import tqdm

from efftasks.apis import load_config
from efftasks.cli.main import main as efftasks_command
from efftasks.registry import RUNNERS

# Their checkpoints need the plan that a runner saves.
COMPRESSED = set(Path("configs", "compress").resolve().iterdir()) if Path("configs", "compress").is_dir() else set()


def sweep() -> ModuleType:
    """The config sweep of the checkout that is measured: it writes the pictures that each config expects."""
    spec = importlib.util.spec_from_file_location("sweep", Path("tests", "contracts", "test_configs.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The objects of a picture, the same in every checkout.
    vars(module)["BOXES"] = 2 * (([10, 10, 40, 30], [50, 20, 30, 50]),)
    return module


def digest(arrays: Iterable[Any]) -> str:
    """Of all their bytes, in order."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def small_config(tests: ModuleType, file: Path, folder: Path) -> Config:
    """A shipped config on four pictures in ``folder``, at a small input size, in one process."""
    raw = Config.fromfile(file)
    classes = tuple(raw.get("classes") or ("cat", "dog", "bird"))
    (folder / "classes.json").write_text(json.dumps(classes))
    for loader in (raw.train_dataloader, raw.val_dataloader, raw.test_dataloader):
        dataset = tests.innermost(loader.dataset)
        if "ann_file" in dataset:
            names = raw.get("keypoints", {}).get("names") or (("a", "b") if "pose" in file.parts else ())
            tests.write_coco(folder, dataset, classes, names)
        else:
            tests.write_semantic(folder, dataset, classes)
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    raw.merge_from_dict(dict(data_root=str(folder), work_dir=str(folder / "work")))
    divisible = {"seaformer": (128, 128)}  # training pads to the divisor, an exported file is refused
    raw.image_size = raw.crop_size = {**divisible, **tests.LARGER}.get(file.parent.name, tests.SMALL)
    if raw.model.get("test_cfg", {}).get("mode") == "slide":
        raw.model.test_cfg.update(crop_size=raw.image_size, stride=raw.image_size)
    cfg = load_config(raw)
    cfg.experiment_name = f"same-numbers-{file.stem}"
    return cfg


def record(file: Path, tests: ModuleType, folder: Path, export: bool) -> dict[str, Any]:
    """Two training steps of a config, and its exported file."""
    cfg = small_config(tests, file, folder)
    set_random_seed(0)
    runner = RUNNERS.get(cfg.get("runner_type", "Runner")).from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.optim_wrapper = wrapper
    dataset = runner.train_loop.dataloader.dataset
    set_random_seed(0)
    runner.model.train()
    row: dict[str, Any] = dict(batches=[], losses=[])
    for step in range(2):
        batch = pseudo_collate([dataset[2 * step + i] for i in range(2)])
        row["batches"].append(digest(image.numpy() for image in batch["inputs"]))
        losses = runner.model.train_step(batch, wrapper)
        row["losses"].append({name: torch.as_tensor(value).item() for name, value in sorted(losses.items())})
    state = runner.model.state_dict()
    row["state"] = digest(state[name].float().numpy() for name in sorted(state))
    if export:
        metainfo = dict(dataset.metainfo)
        torch.save(dict(state_dict=state, meta=dict(dataset_meta=metainfo)), folder / "model.pth")
        cfg.dump(str(folder / "dumped.py"))
        row["outputs"] = exported_outputs(folder, cfg.image_size)
    return row


def exported_outputs(folder: Path, size: tuple[int, int]) -> dict[str, Any]:
    """What the exported file infers from one random picture: its outputs by name."""
    import onnxruntime

    words = ["export", str(folder / "dumped.py"), str(folder / "model.pth"), "--out", str(folder / "out")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        efftasks_command([*words, "--num-images", "1"])  # a network that has learned nothing may be rejected
    path = next((folder / "out").glob("model*.onnx"), None)
    if path is None:
        raise RuntimeError(f"{folder}: nothing was exported: {errors.getvalue()}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    values = session.run(None, {session.get_inputs()[0].name: picture})
    names = [output.name for output in session.get_outputs()]
    return {name: dict(digest=digest([value]), sum=float(value.sum())) for name, value in zip(names, values)}


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs: a line each."""
    lines = [f"{name}: only in one of the two" for name in sorted(set(before) ^ set(after))]
    for name in sorted(set(before) & set(after)):
        old, new = before[name], after[name]
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                lines.append(f"{name}: {key}\n  before {old.get(key)}\n  after  {new.get(key)}")
    return lines


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="verb", required=True)
    recorder = subparsers.add_parser("record", help="the numbers of the checkout in the current folder")
    recorder.add_argument("out", type=Path, metavar="FILE")
    recorder.add_argument("--only", default="", help="configs whose name holds this")
    comparer = subparsers.add_parser("compare", help="two recordings")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.verb == "compare":
        before, after = (json.loads(path.read_text()) for path in (args.before, args.after))
        lines = compare(before, after)
        print("\n".join(lines) or f"equal: {len(before)} configs")
        return bool(lines)
    torch.set_num_threads(1)
    tests = sweep()
    rows: dict[str, Any] = {}
    methods: set[Path] = set()
    files = [file for file in tests.RUNNABLE if "-l_" not in file.stem and "-x_" not in file.stem]
    for file in tqdm([file for file in files if args.only in file.stem]):
        with tempfile.TemporaryDirectory() as folder:
            rows[file.stem] = record(file, tests, Path(folder), file.parent not in methods | COMPRESSED)
        methods.add(file.parent)
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(rows)} configs of {Path(efftasks.__path__[0]).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
