"""Checks that the training and test pipelines prepare images alike: a difference lowers accuracy without an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config

from efftasks.datasets.findings import Finding
from efftasks.linking.data import leaves
from efftasks.linking.declared import declared, fit_of, replacement_of
from efftasks.linking.hooks import hooks_of
from efftasks.linking.links import Place, walk
from efftasks.linking.sizes import dotted
from efftasks.structures.errors import UserError
from efftasks.structures.image_fit import ImageFit

__all__ = ["check_pipelines"]


class _Fit(NamedTuple):
    """A transform that resizes images, and how."""

    place: str
    image: ImageFit


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
            replacement = replacement_of(node.get("type"))
            if replacement is not None:
                raise UserError(f"{dotted(inner)}: {node['type']} was removed, expected {replacement}")
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
    for action, attribute in (("reads images", "reads_images"), ("normalizes", "normalizes")):
        in_train, in_test = (_transforms(pipeline, attribute) for pipeline in (train, test))
        if in_train != in_test:
            yield (
                f"training {action} differently: {dotted(train_place)} has {in_train or 'none'}, {dotted(test_place)} "
                f"{in_test or 'none'}; the network is tested on other pixels than it learns from"
            )


def _fit_differences(train_fits: list[_Fit], test_fit: _Fit) -> Iterator[str]:
    # A stretched image stays stretched, whatever follows.
    train_fit = next((fit for fit in train_fits if fit.image.mode == "stretch"), train_fits[-1])
    train, test, places = train_fit.image, test_fit.image, f"{train_fit.place} and {test_fit.place}"
    if train.mode != test.mode:
        yield (
            f"training fits images by {train.mode}, test by {test.mode}: {places} give the same object another shape; "
            "make both the same"
        )
        return
    last = train_fits[-1]
    if last.image.size is not None and test.size is not None and last.image.size != test.size:
        yield (
            f"training has images of {_format_size(last.image.size)}, test of {_format_size(test.size)}: {last.place} "
            f"and {test_fit.place} differ, and so do objects in scale"
        )
    pads = train.mode != "stretch"
    for name, in_train, in_test in (
        ("pad value", train.pad_value if pads else None, test.pad_value if pads else None),
        ("padding of boxes", train.padding, test.padding),
        ("interpolation", train.interpolation, test.interpolation),
    ):
        if in_train is not None and in_test is not None and in_train != in_test:
            yield f"training has {name} {in_train}, test {in_test}: {places} differ; make both the same"


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _fits(place: Place, pipeline: Any) -> list[_Fit]:
    """The transforms of a pipeline that resize images, in order, also those inside other transforms."""
    fits = ((dotted(inner), fit_of(node)) for inner, node in walk(pipeline, place))
    return [_Fit(inner, fit) for inner, fit in fits if fit is not None]


def _transforms(pipeline: Any, attribute: str) -> list[dict[str, Any]]:
    """The configs of a pipeline's transforms whose class declares an attribute."""
    return [dict(node) for _, node in walk(pipeline) if declared(node.get("type"), attribute)]


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
