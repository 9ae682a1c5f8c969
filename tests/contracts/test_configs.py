"""Every shipped config is what its name says, and can be built, trained for one step and asked for one prediction."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmcv.cnn.bricks.drop import DropPath
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from efftasks.apis import build, fuse, load_config, shipped_configs
from efftasks.registry import RUNNERS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.py"))
RUNNABLE = [file for file in FILES if "_base_" not in file.parts]
TASKS = {"det", "insseg", "pose", "multitask", "semseg", "compress", "deploy"}
SMALL = (96, 96)  # divisible by every divisor, and quick
LARGER = {"lraspp": (800, 800)}  # mmseg's head pools over 49 x 49 cells of stride 16
MOST_BASE_LEVELS = 2
# Of two objects a picture, x, y, width, height: small ones, and such as reach into the coarser maps.
BOXES = (([10, 10, 40, 30], [50, 20, 30, 50]), ([4, 4, 110, 72], [30, 15, 75, 60]))
# (methods with sizes, or names; parameters; what they are; why): all others have a gradient other than 0, and move.
STILL = (
    (
        "o2o.*",
        r"head\.(one_to_one\.(boxes|parts\..*)\.[012]|one_to_many\.(boxes|parts\..*)\.2)\..*",
        "zero gradient",
        "one point an object: a level may have none; and none of these is as large as boxes of stride 32, 128 px",
    ),
    (
        "o2o.*_exit(-alone)?",
        r"early_exit\.head\.(one_to_one|one_to_many)\.(boxes|classes)\.[01]\..*",
        "zero gradient",
        "the same, of the head of an exit",
    ),
    (
        "o2o.*_exit-alone",
        r"(backbone|neck|head)\..*",
        "frozen",
        "only the exit learns",
    ),
    (
        "o2o.*_qat(-distil)?",
        r"head\.one_to_(one|many)\.boxes\.[012]\..*",
        "zero gradient",
        "the same, and without batch norms an untrained network predicts nearly the same everywhere",
    ),
    (
        "o2o.*_qat(-distil)?",
        r"head\.one_to_(one|many)\.boxes\.[012]\..*",
        "not moved",
        "the same: gradients below AdamW's epsilon",
    ),
    (
        "rtdetrv2-[mlx]|dfine-[lx]",
        r"backbone\.(stem\..*|stages\..*\.norm\.(weight|bias))",
        "frozen",
        "as published, where the larger sizes begin from ImageNet",
    ),
    ("stdc-.*", r"auxiliary_head\.2\.fusion_kernel", "frozen", "a constant of mmseg's boundary loss"),
    (
        "dfine.*|deim.*|detrpose-.*",
        r"backbone\..*\.lab\.(scale|bias)",
        "zero gradient",
        "one number that the next norm takes out again: its gradient is what rounding leaves, and that may be 0",
    ),
    (
        "bisenetv2-.*",
        r"backbone\.semantic\.stage4_CEBlock\.gap\.1\.bias",
        "zero gradient",
        "the norm after the next convolution takes it out again",
    ),
)

# <method>-<size>_<backbone>_<gpus>xb<batch>-<schedule>_<dataset>-<res>[_<change>]
NAME = re.compile(
    r"(?P<method>[a-z0-9]+)-(?P<size>[a-z0-9]+)_(?P<backbone>[a-z0-9-]+)_(?P<gpus>\d+)xb(?P<batch>\d+)"
    r"-(?P<epochs>\d+)e_(?P<dataset>[a-z0-9-]+)-(?P<res>\d+)(?P<change>_[a-z0-9-]+)?"
)


def label(file: Path) -> str:
    return str(file.relative_to(CONFIGS))


def bases(file: Path) -> list[Path]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_base_" for t in node.targets):
            value = ast.literal_eval(node.value)
            return [(file.parent / path).resolve() for path in ([value] if isinstance(value, str) else value)]
    return []


def levels(file: Path) -> int:
    return max((1 + levels(base) for base in bases(file)), default=0)


@pytest.mark.parametrize("file", FILES, ids=label)
def test_at_most_two_levels_of_bases(file: Path) -> None:
    compresses = file.parent.parent.name == "compress"  # the base is the complete config of the network
    assert levels(file) <= MOST_BASE_LEVELS + compresses


@pytest.mark.parametrize("file", FILES, ids=label)
def test_text_follows_the_rules(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "_delete_" not in text, "a config that must delete what it inherits has the wrong base"
    assert "openmmlab.com" not in text, "the download host is gone"
    assert text.startswith("#") or "_base_" in file.parts, "the first line says what the config is for"


@pytest.mark.parametrize("file", RUNNABLE, ids=label)
def test_name_tells_the_truth(file: Path) -> None:
    found = NAME.fullmatch(file.stem)
    assert found is not None, "expected <method>-<size>_<backbone>_<gpus>xb<batch>-<epochs>e_<dataset>-<res>[_<change>]"
    assert file.parent.parent.name in TASKS
    assert file.parent.parent.parent == CONFIGS
    if file.parent.parent.name not in ("compress", "deploy"):  # there, the folder is the method of compression
        assert file.parent.name == found["method"]
    cfg = Config.fromfile(file)
    assert cfg.train_dataloader.batch_size == int(found["batch"])
    assert cfg.max_epochs == int(found["epochs"]) and cfg.train_cfg.max_epochs is None  # linking fills it
    assert max(cfg.image_size) == int(found["res"])


def test_names_are_unique() -> None:
    assert len({file.stem for file in RUNNABLE}) == len(RUNNABLE)
    assert set(shipped_configs()) == {file.stem for file in RUNNABLE}


def known_classes(file: Path) -> dict[str, Any]:
    """What a config takes from its training data, which is not there, as overrides."""
    given = any(name in file.stem for name in ("coco", "cityscapes", "shapes", "gluetubes", "bccd", "nuclei"))
    if "_custom-" in file.stem and file.parent.parent.name == "pose":
        return {"classes": ["c0"], "keypoints": {"names": ["a", "b"]}}
    return {} if given else {"classes": [f"c{i}" for i in range(11 if "camvid" in file.stem else 3)]}


@pytest.mark.parametrize("file", RUNNABLE, ids=label)
def test_schedule_ends_with_training(file: Path) -> None:
    """Or where the last augmentation ends, or training begins again from the best; the rate stays from there on."""
    cfg = load_config(str(file), known_classes(file))
    hooks = [hook.get("switch_epoch", hook.get("epoch")) for hook in cfg.default_hooks.values() if hook]
    ends = {cfg.max_epochs, *(epoch for epoch in hooks if epoch is not None)}
    decays = [x for x in cfg.param_scheduler if x.type in ("CosineAnnealingLR", "PolyLR")]
    for scheduler in decays:
        begin = scheduler.get("begin", 0)
        assert scheduler.get("end", begin + scheduler.get("T_max", 0)) in ends
        assert scheduler.get("T_max") in (None, scheduler.get("end", cfg.max_epochs) - begin)


def described(folder: Path) -> dict[str, dict[str, Any]]:
    models = yaml.safe_load((folder / "metafile.yml").read_text(encoding="utf-8"))["Models"]
    return {model["Name"]: model for model in models}


@pytest.mark.parametrize("folder", sorted({file.parent for file in RUNNABLE}), ids=label)
def test_a_method_is_described(folder: Path) -> None:
    """README and metafile name all configs, and say the same of them."""
    models = described(folder)
    assert set(models) == {file.stem for file in folder.glob("*.py")}
    rows = re.findall(r"^\| `([^`]*)` \|(.*)\|$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, _ in rows} == set(models)
    for name, rest in rows:
        model = models[name]
        assert ROOT / model["Config"] == folder / f"{name}.py"
        cells = [float(cell) for cell in rest.split("|") if re.fullmatch(r"\s*[\d.]+\s*", cell)]
        assert model["Metadata"]["Parameters (M)"] == cells[0]
        for result in model.get("Results", []):
            (quality,) = result["Metrics"].values()  # in percent: box AP, mIoU
            assert cells[-1] in (quality, pytest.approx(quality / 100))
        assert model["Metadata"]["Input Size"] == max(Config.fromfile(ROOT / model["Config"]).image_size)


@pytest.mark.parametrize("file", RUNNABLE, ids=label)
def test_parameters_are_as_described(file: Path) -> None:
    cfg = load_config(str(file), known_classes(file))
    count = sum(parameter.numel() for parameter in fuse(build(cfg)).parameters()) / 1e6
    stated = described(file.parent)[file.stem]["Metadata"]["Parameters (M)"]
    assert stated == pytest.approx(count, rel=0.004)


def write_coco(root: Path, dataset: dict[str, Any], classes: tuple[str, ...], keypoints: Sequence[str]) -> None:
    """Four pictures with two objects each, where the config expects its own data. Category ids have gaps.

    The second object of a picture has no keypoints.
    """
    folder = root / dataset["data_prefix"]["img"]
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    images: list[dict] = []
    annotations: list[dict] = []
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), random.integers(0, 255, (80, 120, 3), dtype=np.uint8))
        images.append(dict(id=i + 1, file_name=f"{i}.png", width=120, height=80))
        for j, box in enumerate(BOXES[i % 2]):
            category = 3 * ((2 * i + j) % len(classes)) + 1
            x, y, w, h = box
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            points = [[x + w * k / len(keypoints), y + h / 2, 2 - j * 2] for k in range(len(keypoints))]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=i + 1, category_id=category, bbox=box, area=w * h)
                | dict(iscrowd=0, segmentation=outline, keypoints=np.ravel(points).tolist())
            )
    known = dict(keypoints=list(keypoints), skeleton=[]) if keypoints else {}
    categories = [dict(id=3 * k + 1, name=name, **known) for k, name in enumerate(classes)]
    if "seg_map" in dataset:
        write_label_maps(root, dataset["seg_map"], folder)
    path = root / dataset["ann_file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def write_label_maps(root: Path, pattern: str, pictures: Path) -> None:
    """A label map beside each picture, where the config says it is."""
    for picture in pictures.glob("*.png"):
        path = root / pattern.format(folder="", stem=picture.stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.zeros((80, 120), np.uint8)
        labels[20:50, 10:60], labels[:5] = 1, 255
        cv2.imwrite(str(path), labels)


def write_semantic(root: Path, dataset: dict[str, Any], classes: tuple[str, ...]) -> None:
    """Four pictures with label maps of all classes, and some pixels that are none."""
    random = np.random.default_rng(0)
    ends = ("_leftImg8bit", "_gtFine_labelTrainIds") if "Cityscapes" in dataset["type"] else ("", "")
    for i in range(4):
        labels = np.kron(random.integers(0, len(classes), (4, 6)), np.ones((20, 20))).astype(np.uint8)
        labels[:5] = 255
        pictures = (random.integers(0, 255, (80, 120, 3), dtype=np.uint8), labels)
        for picture, key, end in zip(pictures, ("img_path", "seg_map_path"), ends):
            path = root / dataset["data_prefix"][key] / f"{i}{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)


def innermost(dataset: dict[str, Any]) -> dict[str, Any]:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


@pytest.fixture
def cfg(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Config]:
    raw = Config.fromfile(request.param)
    # Formatted for the log, some configs would take as long as a step.
    raw = Config(raw.to_dict(), filename=str(request.param), format_python_code=False)
    classes = tuple(raw.get("classes") or ("cat", "dog", "bird"))
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    for loader in (raw.train_dataloader, raw.val_dataloader, raw.test_dataloader):
        dataset = innermost(loader.dataset)
        if "ann_file" in dataset:
            names = raw.get("keypoints", {}).get("names") or (("a", "b") if "pose" in request.param.parts else ())
            write_coco(tmp_path, dataset, classes, names)
        else:
            write_semantic(tmp_path, dataset, classes)
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    raw.merge_from_dict(dict(data_root=str(tmp_path), work_dir=str(tmp_path / "work")))
    small = LARGER.get(request.param.parent.name, SMALL)
    raw.image_size = raw.crop_size = small
    if raw.model.get("test_cfg", {}).get("mode") == "slide":
        raw.model.test_cfg.update(crop_size=small, stride=small)
    yield load_config(raw)
    DefaultScope.get_instance("after", scope_name="mmengine")


def large_ones_are_slow(file: Path) -> Any:
    """The sizes l and x of a family are built as its s and m are, and take a minute each."""
    return pytest.param(file, marks=pytest.mark.slow) if "-l_" in file.stem or "-x_" in file.stem else file


def wake(model: torch.nn.Module) -> dict[str, bool]:
    """Let every parameter learn from the first step: behind a layer that begins with zeros there is no gradient.

    Returns:
        Whether the gradient of a parameter is anything but 0, by its name; it is filled by the backward pass.
    """
    found: dict[str, bool] = {}

    def note(name: str, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        found[name] = bool(parameter.grad.any())

    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # it may leave out a branch for both pictures
    for name, parameter in model.named_parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.02)
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(note, name))
    return found


def faults(model: torch.nn.Module, gradients: dict[str, bool], before: list[torch.Tensor]) -> dict[str, str]:
    """What is wrong with each parameter that did not learn in a step."""
    wrong = {}
    for (name, parameter), old in zip(model.named_parameters(), before):
        if not parameter.requires_grad:
            wrong[name] = "frozen"
        elif not gradients.get(name):
            wrong[name] = "zero gradient" if name in gradients else "no gradient"
        elif torch.equal(parameter, old):
            wrong[name] = "not moved"
    return wrong


def is_explained(config: str, name: str, fault: str) -> bool:
    return any(
        re.fullmatch(f"(?:{methods})(?:_.*)?", config) and re.fullmatch(names, name) and fault == kind
        for methods, names, kind, _ in STILL
    )


@pytest.mark.parametrize("cfg", map(large_ones_are_slow, RUNNABLE), ids=label, indirect=True)
def test_builds_trains_one_step_and_predicts(cfg: Config) -> None:
    cfg.experiment_name = f"sweep-{id(cfg)}"
    runner = RUNNERS.get(cfg.get("runner_type", "Runner")).from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    runner.optim_wrapper = wrapper
    dataset = runner.train_loop.dataloader.dataset
    assert len(dataset) == 4  # pictures; or objects with keypoints, where those are taken one by one
    batch = pseudo_collate([dataset[i] for i in range(2)])
    assert tuple(batch["inputs"][0].shape[-2:]) == tuple(cfg.image_size)

    gradients = wake(runner.model)
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.model.train()
    losses = runner.model.train_step(batch, wrapper)
    assert all(bool(torch.isfinite(value)) for value in losses.values()), losses
    config = Path(cfg.filename).stem
    still = faults(runner.model, gradients, before)
    assert {name: fault for name, fault in still.items() if not is_explained(config, name, fault)} == {}
    assert runner.build_param_scheduler(cfg.param_scheduler)  # after the step: warm-up begins with rates near 0

    runner.model.eval()
    sample = runner.test_loop.dataloader.dataset[0]
    with torch.no_grad():
        (result,) = runner.model.test_step(pseudo_collate([sample]))
    height, width = result.ori_shape
    assert (height, width) == (80, 120)
    if "pred_sem_seg" in result:
        assert result.pred_sem_seg.data.shape == (1, height, width)
        if "pred_instances" not in result:
            assert result.gt_sem_seg.data.shape == (1, height, width)
            return
    assert bool(torch.isfinite(result.pred_instances.scores).all())
    boxes = result.pred_instances.bboxes
    assert bool((boxes >= 0).all()) and bool((boxes[:, 2] <= width).all()) and bool((boxes[:, 3] <= height).all())
    if "masks" in result.pred_instances:
        assert result.pred_instances.masks.shape == (len(boxes), height, width)
    if "keypoints" in result.pred_instances:
        assert result.pred_instances.keypoints.shape[2] == 3
