"""Checks that the training and test pipelines prepare images alike: a difference lowers accuracy without an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

from efftasks.datasets.findings import Finding
from efftasks.imaging.crops import CROP_PADDING
from efftasks.linking.data import leaves
from efftasks.linking.hooks import hooks_of
from efftasks.linking.links import Place, walk
from efftasks.linking.sizes import dotted
from efftasks.structures.errors import UserError

__all__ = ["check_pipelines"]

_PAD_VALUE = 114
# Transforms of earlier versions, and what replaces them.
_REMOVED = {
    "GridMosaic": "ObjectMosaic with layout='grid', and behind it RandomWarp with mode='stretch' and min_visible=0.0, "
    "as in configs/_base_/datasets/detr_pipelines.py"
}


class _Fit(NamedTuple):
    """How a transform resizes images."""

    place: str
    mode: str  # letterbox, stretch or crop
    size: tuple[int, int] | None  # (height, width); None if it varies, or is smaller than in test on purpose
    pad_value: Any = None  # None if nothing is padded
    padding: float | None = None  # factor of a crop around a box
    interpolation: str | None = None


def check_pipelines(cfg: Config) -> list[Finding]:
    """Compare how the training and the test pipelines of a linked config read, resize and normalize images.

    Of each pipeline the last transform that resizes is compared (letterbox, stretch or crop, size, pad value and
    interpolation). Mean and standard deviation need no check: both use the model's preprocessor.

    Returns:
        A warning for each difference, which names both places.

    Raises:
        UserError: a pipeline, also one that training switches to, has a transform that was removed.
    """
    for place, pipeline in _train_pipelines(cfg):
        for inner, node in walk(pipeline, place):
            if _type_of(node) in _REMOVED:
                raise UserError(f"{dotted(inner)}: {node['type']} was removed, expected {_REMOVED[_type_of(node)]}")
    findings: list[Finding] = []
    seen: set[str] = set()
    for test_place, test in _pipelines(cfg, ("val_dataloader", "test_dataloader")):
        for train_place, train in _train_pipelines(cfg):
            for sentence in _differences(train_place, train, test_place, test):
                # val and test, and the pipelines that training switches to, mostly have the same difference
                key = sentence.split(":", 1)[0]
                if key not in seen:
                    seen.add(key)
                    findings.append(Finding("warning", sentence))
    return findings


def _differences(train_place: Place, train: Any, test_place: Place, test: Any) -> Iterator[str]:
    train_fits, test_fits = _fits(train_place, train), _fits(test_place, test)
    if train_fits and test_fits:
        yield from _fit_differences(train_fits, test_fits[-1])
    for action, kinds in (("reads images", ("LoadImageFromFile", "LoadImage")), ("normalizes", ("Normalize",))):
        in_train, in_test = (_transforms(pipeline, kinds) for pipeline in (train, test))
        if in_train != in_test:
            yield (
                f"training {action} differently: {dotted(train_place)} has {in_train or 'none'}, {dotted(test_place)} "
                f"{in_test or 'none'}; the network is tested on other pixels than it learns from"
            )


def _fit_differences(train_fits: list[_Fit], test: _Fit) -> Iterator[str]:
    # A stretched image stays stretched, whatever follows.
    train = next((fit for fit in train_fits if fit.mode == "stretch"), train_fits[-1])
    if train.mode != test.mode:
        yield (
            f"training fits images by {train.mode}, test by {test.mode}: {train.place} and {test.place} give the same "
            "object another shape; make both the same"
        )
        return
    last = train_fits[-1]
    if last.size is not None and test.size is not None and last.size != test.size:
        yield (
            f"training has images of {_format_size(last.size)}, test of {_format_size(test.size)}: {last.place} and "
            f"{test.place} differ, and so do objects in scale"
        )
    for name, in_train, in_test in (
        ("pad value", train.pad_value, test.pad_value),
        ("padding of boxes", train.padding, test.padding),
        ("interpolation", train.interpolation, test.interpolation),
    ):
        if in_train is not None and in_test is not None and in_train != in_test:
            yield (
                f"training has {name} {in_train}, test {in_test}: {train.place} and {test.place} differ; make both the "
                "same"
            )


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _fits(place: Place, pipeline: Any) -> list[_Fit]:
    """The transforms of a pipeline that resize images, in order, also those inside other transforms."""
    fits = (_fit(dotted(inner), node) for inner, node in walk(pipeline, place))
    return [fit for fit in fits if fit is not None]


def _fit(place: str, node: dict[str, Any]) -> _Fit | None:
    kind = _type_of(node)
    size = _as_pair(node.get("size"))
    if kind == "FitImage":
        mode = node.get("mode", "letterbox")
        return _Fit(place, mode, size, node.get("pad_value", _PAD_VALUE) if mode == "letterbox" else None)
    if kind == "RandomWarp":
        mode = node.get("mode", "letterbox")
        return _Fit(place, mode, size, node.get("fill", _PAD_VALUE) if mode == "letterbox" else None)
    if kind == "RandomScaledCrop":
        return _Fit(place, "letterbox", None, node.get("pad_value", _PAD_VALUE))
    if kind == "CropBox":
        padding = float(node.get("padding", CROP_PADDING))
        return _Fit(place, "crop", size, node.get("pad_value", _PAD_VALUE), padding)
    if kind == "Resize":
        interpolation = node.get("interpolation", "bilinear")
        if node.get("keep_ratio"):
            return _Fit(place, "letterbox", None, interpolation=interpolation)
        scale = _as_pair(node.get("scale"))  # (width, height)
        return _Fit(place, "stretch", scale and (scale[1], scale[0]), interpolation=interpolation)
    return None


def _as_pair(size: Any) -> tuple[int, int] | None:
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _transforms(pipeline: Any, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """The configs of a pipeline's transforms of these types."""
    return [dict(node) for _, node in walk(pipeline) if _type_of(node) in kinds]


def _type_of(node: dict[str, Any]) -> str:
    return str(node.get("type", "")).rpartition(".")[2]


def _pipelines(cfg: Config, loaders: tuple[str, ...]) -> Iterator[tuple[Place, Any]]:
    for name in loaders:
        loader = cfg.get(name)
        if loader and loader.get("dataset"):
            for place, dataset in leaves(loader["dataset"], (name, "dataset")):
                if dataset.get("pipeline"):
                    yield (*place, "pipeline"), dataset["pipeline"]


def _train_pipelines(cfg: Config) -> Iterator[tuple[Place, Any]]:
    """The pipelines of the training data, and those that hooks switch to."""
    yield from _pipelines(cfg, ("train_dataloader",))
    for place, hook in hooks_of(cfg):
        if hook.get("switch_pipeline"):
            yield (*place, "switch_pipeline"), hook["switch_pipeline"]
