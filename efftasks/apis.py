"""What the commands, the docs and the tests call: configs, models and predictions on the PyTorch side."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import efftasks.compat

# isort: split
import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from tqdm import tqdm

from efftasks.datasets.coco import match_classes, read_coco
from efftasks.datasets.semantic_files import read_classes
from efftasks.datasets.transforms.loading import LoadSegMap
from efftasks.models.detectors import Detector
from efftasks.models.layers.fuse import fuse_model
from efftasks.models.scaling import apply_scale
from efftasks.models.segmentors import Segmentor
from efftasks.registry import DATASETS, MODELS, RUNNERS
from efftasks.structures.checkpoint import load_matching, read_checkpoint, weights_of
from efftasks.structures.errors import UserError
from efftasks.structures.prediction import Prediction
from efftasks.structures.spec import ArtifactSpec, InputSpec

__all__ = [
    "Evaluation",
    "build",
    "config_folder",
    "config_path",
    "describe",
    "draw_comparison",
    "evaluate",
    "fuse",
    "input_size",
    "load",
    "load_config",
    "predict",
    "set_input_size",
    "shipped_configs",
    "test_images",
    "train",
]

Model = Detector | Segmentor

_FIT_NAMES = ("FitImage", "efftasks.FitImage")
_CROP_NAMES = ("RandomScaledCrop", "efftasks.RandomScaledCrop")
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def config_folder() -> Path:
    """The folder of the shipped configs: in the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent
    for folder in (package / ".mim" / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise UserError("the shipped configs are missing; reinstall efftasks, or give the path of a config file")


def shipped_configs() -> dict[str, Path]:
    """Name (file name without suffix) to path of every shipped config that can be run."""
    folder = config_folder()
    return {path.stem: path for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts}


def load_config(config: str | Path | Config, options: dict[str, Any] | None = None) -> Config:
    """Read a config and make the links which it states only once.

    Top-level ``data_root`` goes to every dataset, top-level ``classes`` to every dataset and, as their number, to the
    heads; without classes they are those of the training annotations. Top-level ``image_size`` goes to every transform
    that leaves its ``size`` at None, and ``crop_size`` (where it is another) to the crops of training. Top-level
    ``scale`` (``dict(phi=1.0)``, and ``alpha``, ``beta``, ``gamma``) makes depth, width and input size larger together,
    see :mod:`efftasks.models.scaling`.

    Args:
        config: a path, the name of a shipped config, or a Config.
        options: overrides, keys with dots, as ``--cfg-options`` gives them.

    Raises:
        UserError: there is no such config, it does not parse, or it contradicts the annotations.
    """
    if isinstance(config, Config):
        cfg = config.copy()
    else:
        path = config_path(config)
        try:
            cfg = Config.fromfile(path)
        except UserError:
            raise
        except Exception as error:  # a config is Python: anything can go wrong in it
            raise UserError(f"{path}: the config does not parse ({type(error).__name__}: {error})") from error
    if options:
        cfg.merge_from_dict(options)
    cfg.setdefault("default_scope", "efftasks")
    _link(cfg)
    return cfg


def config_path(config: str | Path) -> Path:
    """The file of a config given by its path or by the name of a shipped one.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    path = Path(config)
    if path.is_file():
        return path
    known = shipped_configs()
    if path.suffix not in ("", ".py") or len(path.parts) > 1 or path.stem not in known:
        near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{config}: no such config file, and no shipped config has this name{hint}")
    return known[path.stem]


def _link(cfg: Config) -> None:
    apply_scale(cfg)
    if "image_size" in cfg:
        whole = tuple(cfg.image_size)
        _set_sizes(cfg._cfg_dict, whole, tuple(cfg.get("crop_size", whole)))
    datasets = [_innermost(cfg[name]["dataset"]) for name in _LOADERS if cfg.get(name)]
    if "data_root" in cfg:
        for dataset in datasets:
            dataset.setdefault("data_root", cfg.data_root)
    for part in ("val", "test"):
        evaluator = cfg.get(f"{part}_evaluator")
        if evaluator and "ann_file" in evaluator and evaluator["ann_file"] is None:
            dataset = _innermost(cfg[f"{part}_dataloader"]["dataset"])
            evaluator["ann_file"] = str(Path(dataset.get("data_root", ""), dataset["ann_file"]))
    known = _known_classes(cfg)
    if known is None:
        return
    cfg.classes = classes = known["classes"]
    for dataset in datasets:
        dataset.setdefault("metainfo", dict(known))
    for name in ("head", "decode_head"):
        head = cfg.model.get(name, {})
        if head.get("num_classes") not in (None, len(classes)):
            raise UserError(
                f"model.{name}.num_classes: got {head['num_classes']}, expected {len(classes)}, "
                f"the number of classes {tuple(classes)}"
            )
    _set_classes(cfg.model, len(classes))


def _set_classes(node: Any, count: int) -> None:
    """Give the number of classes to every head that leaves it open; an auxiliary head may count something else."""
    if isinstance(node, dict):
        if "num_classes" in node and node["num_classes"] is None:
            node["num_classes"] = count
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            _set_classes(part, count)


def _set_sizes(node: Any, whole: tuple[int, int], crop: tuple[int, int]) -> None:
    """Give transforms without a size the config's, in pipelines wherever they are."""
    if isinstance(node, dict):
        if node.get("type") in _FIT_NAMES and node.get("size") is None:
            node["size"] = whole
        if node.get("type") in _CROP_NAMES and node.get("size") is None:
            node["size"] = crop
            if node.get("fit") is None:
                node["fit"] = whole
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            _set_sizes(part, whole, crop)


def _innermost(dataset: Any) -> Any:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def _known_classes(cfg: Config) -> dict[str, Any] | None:
    """Names of the classes, and what is said of them beside: the config's, or the training data's."""
    if cfg.get("classes"):
        return dict(classes=tuple(cfg.classes), **({"palette": cfg.palette} if cfg.get("palette") else {}))
    if not cfg.get("train_dataloader"):
        return None
    dataset = _innermost(cfg.train_dataloader.dataset)
    if dataset.get("metainfo", {}).get("classes"):
        return dict(dataset.metainfo)
    root = dataset.get("data_root", "")
    if "ann_file" in dataset:
        path = Path(root, dataset.ann_file)
        return dict(classes=tuple(match_classes(path, read_coco(path)["categories"], None)))
    path = Path(root, "classes.json")
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected it, or the names of the classes as `classes` in the config")
    found = read_classes(path)
    facts = dict(palette=found.palette, ignore=found.ignore)
    return dict(classes=found.names, **{key: value for key, value in facts.items() if value is not None})


def build(config: str | Path | Config) -> Model:
    """The model of a config, freshly initialised.

    Raises:
        UserError: a type that is not registered (the nearest is named), or a wrong argument.
    """
    cfg = load_config(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def load(config: str | Path | Config, checkpoint: str | Path, device: str = "cpu") -> Model:
    """The model of a config with the weights of a checkpoint, ready to predict.

    ``model.dataset_meta`` has the classes it was trained on, ``model.cfg`` the config.

    Raises:
        UserError: the checkpoint cannot be read safely or belongs to another architecture.
    """
    data = read_checkpoint(checkpoint)
    meta = data.get("meta", {}).get("dataset_meta") or {}
    cfg = load_config(config, {"classes": list(meta["classes"])} if meta.get("classes") else None)
    model = build(cfg)
    load_matching(model, weights_of(data, checkpoint))
    model.cfg = cfg
    model.dataset_meta = meta
    return model.to(device).eval()


def train(cfg: Config, amp: bool = False, resume: str | None = None, launcher: str = "none") -> Any:
    """Train a linked config in ``cfg.work_dir``.

    Args:
        cfg: from :func:`load_config`.
        amp: mixed precision, bfloat16 on a CPU and float16 with loss scaling on CUDA.
        resume: a checkpoint, or ``auto`` for the newest intact one of the work dir; None starts afresh.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The runner, after training.
    """
    cfg.launcher = launcher
    if amp:
        cfg.optim_wrapper.update(_amp_wrapper())
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", {}).setdefault("dist_cfg", {}).update(backend="gloo")
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == "auto" else resume
    runner = RUNNERS.get(cfg.get("runner_type", "EffRunner")).from_cfg(cfg)
    runner.train()
    return runner


def _amp_wrapper() -> dict[str, Any]:
    if torch.cuda.is_available():
        return dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    return dict(type="CpuAmpOptimWrapper")


@torch.no_grad()
def predict(
    model: Model,
    images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
    score_thr: float = 0.0,
    batch_size: int = 8,
) -> list[Prediction]:
    """Predict with a model of :func:`load`, through the test pipeline of its config.

    Args:
        model: from :func:`load`.
        images: a path, an array uint8 (H, W, 3) BGR, or several.
        score_thr: drop detections below.
        batch_size: images at a time.

    Returns:
        One :class:`Prediction` an image, boxes xyxy and label maps in pixels of that image.

    Raises:
        UserError: an image cannot be read.
    """
    if isinstance(images, (str, Path, np.ndarray)):
        images = [images]
    with DefaultScope.overwrite_default_scope(model.cfg.default_scope):
        pipeline = Compose(_innermost(model.cfg.test_dataloader.dataset).pipeline)
    results: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        batch = pseudo_collate([_prepare(pipeline, image) for image in part])
        for image, sample in zip(part, model.test_step(batch)):
            results.append(
                _prediction(image if isinstance(image, np.ndarray) else str(image), sample, model, score_thr)
            )
    return results


def _prediction(image: str | np.ndarray, sample: Any, model: Model, score_thr: float) -> Prediction:
    facts = _class_facts(model.dataset_meta)
    if "pred_instances" not in sample:
        return Prediction.of_labels(image, sample.pred_sem_seg.data[0].cpu().numpy(), **facts)
    found = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    boxes, scores = found.bboxes.float().cpu().numpy(), found.scores.float().cpu().numpy()
    return Prediction(image, boxes, scores, found.labels.cpu().numpy(), **facts)


def _class_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What predictions and artifacts say of the classes, of a data set's facts."""
    classes = tuple(meta["classes"])
    return dict(
        classes=classes,
        category_ids=tuple(meta.get("category_ids") or range(len(classes))),  # a label map holds indices of classes
        palette=tuple((int(r), int(g), int(b)) for r, g, b in meta.get("palette") or ()),
    )


def _prepare(pipeline: Compose, image: str | Path | np.ndarray) -> dict:
    if not isinstance(image, np.ndarray):
        return pipeline(dict(img_path=str(image), img_id=0))
    info = dict(img=image, img_path="", img_id=0, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    for transform in pipeline.transforms[1:]:  # all but the loading
        info = transform(info)
    return info


def fuse(model: Model) -> Model:
    """A copy of the model for inference: batch norms folded, training-only branches dropped."""
    fused: Any = fuse_model(model.eval())
    return fused


def describe(model: Model) -> ArtifactSpec:
    """What an artifact of a loaded model says of itself."""
    fit = _fit_transform(model.cfg)
    facts = model.data_preprocessor.normalisation
    height, width = fit["size"]
    divisor = model.divisor
    if height % divisor or width % divisor:
        raise UserError(f"image size: got {height} x {width}, expected multiples of {divisor}, the backbone's divisor")
    return ArtifactSpec(
        task=model.task,
        **_class_facts(model.dataset_meta),
        input=InputSpec(
            name="images",
            height=height,
            width=width,
            mean=facts.mean,
            std=facts.std,
            resize=fit.get("mode", "letterbox"),
            pad_value=float(fit.get("pad_value", 114)),
            color=facts.color,
            divisor=divisor,
        ),
        outputs=model.outputs(height, width),
        versions={"efftasks": efftasks.__version__, "torch": torch.__version__},
    )


def input_size(cfg: Config) -> tuple[int, int]:
    """The (height, width) that the test pipeline of a config brings images to."""
    height, width = _fit_transform(cfg)["size"]
    return height, width


def set_input_size(cfg: Config, size: tuple[int, int]) -> None:
    """Change the (height, width) that the test pipeline of a config brings images to."""
    _fit_transform(cfg)["size"] = tuple(size)


def _fit_transform(cfg: Config) -> dict[str, Any]:
    for transform in _innermost(cfg.test_dataloader.dataset).pipeline:
        if transform["type"] in _FIT_NAMES:
            return transform
    raise UserError("test_dataloader.dataset.pipeline has no FitImage, expected one: an artifact repeats its facts")


def _test_data(cfg: Config) -> Any:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return DATASETS.build(_innermost(cfg.test_dataloader.dataset))


def test_images(cfg: Config) -> list[str]:
    """Paths of the test images of a config."""
    dataset = _test_data(cfg)
    return [dataset.get_data_info(i)["img_path"] for i in range(len(dataset))]


class Evaluation(NamedTuple):
    """What :func:`evaluate` found."""

    metrics: dict[str, float]
    predictions: list[Prediction]  # in the order of the data set


def evaluate(
    cfg: Config, predict: Callable[[Sequence[str]], Sequence[Prediction]], classes: Sequence[str], batch_size: int = 8
) -> Evaluation:
    """Score anything that predicts on the test data of a config, with the config's metric.

    Args:
        cfg: from :func:`load_config`.
        predict: paths of images -> one :class:`Prediction` each; a model's or an artifact's.
        classes: the names of its labels; matched with the data set's by name.
        batch_size: paths at a time.

    Raises:
        UserError: the classes are not those of the data set.
    """
    dataset = _test_data(cfg)
    wanted = list(dataset.metainfo["classes"])
    if sorted(wanted) != sorted(classes):
        raise UserError(f"the model's classes {tuple(classes)} are not those of the test data, {tuple(wanted)}")
    relabel = np.array([wanted.index(name) for name in classes], dtype=np.int64)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo

    predictions: list[Prediction] = []
    for start in tqdm(range(0, len(dataset), batch_size), desc="test", unit="batch", disable=None):
        infos = [dataset.get_data_info(i) for i in range(start, min(start + batch_size, len(dataset)))]
        found = predict([info["img_path"] for info in infos])
        predictions.extend(found)
        evaluator.process(data_samples=[_scored(info, x, relabel) for info, x in zip(infos, found)])
    return Evaluation(evaluator.evaluate(len(dataset)), predictions)


def _scored(info: dict[str, Any], prediction: Prediction, relabel: np.ndarray) -> dict[str, Any]:
    """A prediction as metrics take it, with the data set's labels; ``info`` is the data set's entry."""
    if prediction.segmentation is not None:
        labels = torch.from_numpy(relabel[prediction.segmentation])
        truth = torch.from_numpy(_label_map(info))
        return dict(pred_sem_seg=dict(data=labels), gt_sem_seg=dict(data=truth), img_path=info["img_path"])
    instances = dict(
        bboxes=torch.from_numpy(prediction.boxes),
        scores=torch.from_numpy(prediction.scores),
        labels=torch.from_numpy(relabel[prediction.labels]),
    )
    return dict(img_id=info["img_id"], pred_instances=instances)


def _label_map(info: dict[str, Any]) -> np.ndarray:
    """The annotated label map (H, W) of a data set's entry, in the pixels and labels that are scored."""
    labels: np.ndarray = LoadSegMap()(dict(info))["gt_seg_map"]
    return labels


def draw_comparison(
    cfg: Config, predictions: Sequence[Prediction], out: str | Path, number: int = 16, score_thr: float = 0.3
) -> list[Path]:
    """Write pictures of the test data: ground truth on the left, predictions on the right.

    Args:
        cfg: from :func:`load_config`.
        predictions: in the order of the data set, from :func:`evaluate`.
        out: folder.
        number: how many pictures, spread evenly over the data.
        score_thr: least score drawn.

    Returns:
        Paths of the pictures.
    """
    dataset = _test_data(cfg)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in np.unique(np.linspace(0, len(dataset) - 1, number).astype(int)):
        info = dataset.get_data_info(int(i))
        truth = _truth(info, dataset.metainfo).draw()
        found = predictions[i].draw(score_thr=score_thr)
        paths.append(folder / f"{Path(info['img_path']).stem}.png")
        cv2.imwrite(str(paths[-1]), np.concatenate([truth, np.full_like(truth[:, :4], 255), found], axis=1))
    return paths


def _truth(info: dict[str, Any], meta: dict[str, Any]) -> Prediction:
    """What is annotated, as if it had been predicted."""
    facts = _class_facts(meta)
    if "seg_map_path" in info:
        return Prediction.of_labels(info["img_path"], _label_map(info), **facts)
    boxes = np.array([x["bbox"] for x in info["instances"]], np.float32).reshape(-1, 4)
    labels = np.array([x["bbox_label"] for x in info["instances"]], np.int64)
    return Prediction(info["img_path"], boxes, np.ones(len(labels), np.float32), labels, **facts)
