"""Whether training and test show the network the same kind of picture: what differs costs accuracy in silence."""

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

_PAD = 114
# Transforms that earlier versions had, and what does the same now.
_GONE = {
    "GridMosaic": "ObjectMosaic with layout='grid', and behind it RandomWarp with mode='stretch' and min_visible=0.0, "
    "as in configs/_base_/datasets/detr_pipelines.py"
}


class _Fit(NamedTuple):
    """How a transform brings pictures to a size."""

    place: str
    way: str  # letterbox, stretch or crop
    size: tuple[int, int] | None  # (height, width); None where it is not one for all, or smaller on purpose
    pad_value: Any = None  # of what no picture covers; None where there is none
    padding: float | None = None  # of a crop around a box
    interpolation: str | None = None


def check_pipelines(cfg: Config) -> list[Finding]:
    """Compare how the pipelines of a linked config fit, read and normalize pictures in training and in test.

    Compared are the last transform of each that fits pictures (letterbox, stretch or crop, its size, pad value and
    interpolation), how they are read, and the transforms that normalize them. Mean and standard deviation of the
    model's preprocessor are the same for both.

    Returns:
        A warning for each difference, that names both places.

    Raises:
        UserError: a pipeline, of an old config, has a transform that is gone; also one that training would switch to.
    """
    for place, pipeline in _train_pipelines(cfg):
        for inner, node in walk(pipeline, place):
            if _bare(node) in _GONE:
                raise UserError(f"{dotted(inner)}: {node['type']} is gone, expected {_GONE[_bare(node)]}")
    findings: list[Finding] = []
    seen: set[str] = set()
    for test_place, test in _pipelines(cfg, ("val_dataloader", "test_dataloader")):
        for train_place, train in _train_pipelines(cfg):
            for sentence in _differences(train_place, train, test_place, test):
                # val and test, and the pipelines that training switches to, mostly differ in the same
                key = sentence.split(":", 1)[0]
                if key not in seen:
                    seen.add(key)
                    findings.append(Finding("warning", sentence))
    return findings


def _differences(train_place: Place, train: Any, test_place: Place, test: Any) -> Iterator[str]:
    ours, theirs = _fits(train_place, train), _fits(test_place, test)
    if ours and theirs:
        yield from _fit_differences(ours, theirs[-1])
    for what, kinds in (("reads pictures", ("LoadImageFromFile", "LoadImage")), ("normalizes", ("Normalize",))):
        one, other = (_arguments(pipeline, kinds) for pipeline in (train, test))
        if one != other:
            yield (
                f"training {what} differently: {dotted(train_place)} has {one or 'none'}, {dotted(test_place)} "
                f"{other or 'none'}; the network is tested on other pixels than it learns from"
            )


def _fit_differences(ours: list[_Fit], test: _Fit) -> Iterator[str]:
    # What was stretched once stays so, whatever comes after.
    train = next((fit for fit in ours if fit.way == "stretch"), ours[-1])
    if train.way != test.way:
        yield (
            f"training fits pictures by {train.way}, test by {test.way}: {train.place} and {test.place} give the same "
            "object another shape; make both the same"
        )
        return
    last = ours[-1]
    if last.size is not None and test.size is not None and last.size != test.size:
        yield (
            f"training has pictures of {_by(last.size)}, test of {_by(test.size)}: {last.place} and {test.place} "
            "differ, and so do objects in scale"
        )
    for name, one, other in (
        ("pad value", train.pad_value, test.pad_value),
        ("padding of boxes", train.padding, test.padding),
        ("interpolation", train.interpolation, test.interpolation),
    ):
        if one is not None and other is not None and one != other:
            yield f"training has {name} {one}, test {other}: {train.place} and {test.place} differ; make both the same"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _fits(place: Place, pipeline: Any) -> list[_Fit]:
    """The transforms of a pipeline that bring pictures to a size, in order, also inside choices."""
    found = (_fit(dotted(inner), node) for inner, node in walk(pipeline, place))
    return [fit for fit in found if fit is not None]


def _fit(place: str, node: dict[str, Any]) -> _Fit | None:
    kind = _bare(node)
    pair = _pair(node.get("size"))
    if kind == "FitImage":
        way = node.get("mode", "letterbox")
        return _Fit(place, way, pair, node.get("pad_value", _PAD) if way == "letterbox" else None)
    if kind == "RandomWarp":
        way = node.get("mode", "letterbox")
        return _Fit(place, way, pair, node.get("fill", _PAD) if way == "letterbox" else None)
    if kind == "RandomScaledCrop":
        return _Fit(place, "letterbox", None, node.get("pad_value", _PAD))
    if kind == "CropBox":
        padding = float(node.get("padding", CROP_PADDING))
        return _Fit(place, "crop", pair, node.get("pad_value", _PAD), padding)
    if kind == "Resize":
        interpolation = node.get("interpolation", "bilinear")
        if node.get("keep_ratio"):
            return _Fit(place, "letterbox", None, interpolation=interpolation)
        scale = _pair(node.get("scale"))  # (width, height)
        return _Fit(place, "stretch", scale and (scale[1], scale[0]), interpolation=interpolation)
    return None


def _pair(size: Any) -> tuple[int, int] | None:
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) and len(size) == 2 else None


def _arguments(pipeline: Any, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """The transforms of these kinds, without what labels alone need."""
    return [dict(node) for _, node in walk(pipeline) if _bare(node) in kinds]


def _bare(node: dict[str, Any]) -> str:
    return str(node.get("type", "")).rpartition(".")[2]


def _pipelines(cfg: Config, loaders: tuple[str, ...]) -> Iterator[tuple[Place, Any]]:
    for name in loaders:
        loader = cfg.get(name)
        if loader and loader.get("dataset"):
            for place, dataset in leaves(loader["dataset"], (name, "dataset")):
                if dataset.get("pipeline"):
                    yield (*place, "pipeline"), dataset["pipeline"]


def _train_pipelines(cfg: Config) -> Iterator[tuple[Place, Any]]:
    """Those of the training data, and those that hooks switch to."""
    yield from _pipelines(cfg, ("train_dataloader",))
    for place, hook in hooks_of(cfg):
        if hook.get("switch_pipeline"):
            yield (*place, "switch_pipeline"), hook["switch_pipeline"]
