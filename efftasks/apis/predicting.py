"""Prediction with PyTorch models, through the test pipeline of their config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from efftasks.apis.building import Model
from efftasks.config import innermost, pixel_range
from efftasks.imaging.prediction import Prediction, class_metadata
from efftasks.imaging.sources import LoadedImage, each_image, in_batches, load_image
from efftasks.runtime.sources import OnError, Skip, error_handler, open_source
from efftasks.structures.errors import UserError

__all__ = ["infer", "predict", "prediction_of", "prepared_input", "stream"]


def predict(
    model: Model,
    images: Any,
    score_thr: float = 0.0,
    batch_size: int = 8,
) -> list[Prediction]:
    """Predict with a model of :func:`load`, through the test pipeline of its config.

    Args:
        model: from :func:`load`.
        images: as for :class:`efftasks.runtime.predictor.Predictor`; or data infos of a data set (dicts). A top-down
            pose estimator takes data infos only, since they have boxes.
        score_thr: minimum score of detections.
        batch_size: images at a time.

    Returns:
        One :class:`Prediction` per image, in pixels of the image.

    Raises:
        UserError: an image cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
    pipeline = _pipeline(model)
    results: list[Prediction] = []
    entries = iter([images]) if isinstance(images, dict) else each_image(images)
    for part in in_batches(enumerate(entries), batch_size):
        results.extend(_predict_batch(model, pipeline, [_entry(model, image, i) for i, image in part], score_thr))
    return results


def stream(
    model: Model, source: Any, score_thr: float = 0.0, batch_size: int = 8, on_error: OnError = "raise"
) -> Iterator[Prediction]:
    """Predict one after another with a model of :func:`load`, with a bounded number of images in memory.

    Args:
        model: from :func:`load`.
        source: images, a video, a camera or a stream, as for
            :meth:`efftasks.runtime.predictor.Predictor.stream`.
        score_thr: minimum score of detections.
        batch_size: images at a time.
        on_error: as for :meth:`efftasks.runtime.predictor.Predictor.stream`.

    Returns:
        An iterator of predictions, in pixels of the image.

    Raises:
        UserError: the source or an image cannot be read, when its turn comes.
    """
    skip = error_handler(on_error)
    if batch_size < 1:
        raise UserError(f"batch_size: got {batch_size}, expected an integer from 1")
    return _stream(model, source, score_thr, batch_size, skip)


def _stream(model: Model, source: Any, score_thr: float, batch_size: int, skip: Skip | None) -> Iterator[Prediction]:
    pipeline, span = _pipeline(model), pixel_range(model.cfg)
    with closing(open_source(source)) as opened:
        for part in in_batches(iter(opened), batch_size):
            loaded: list[LoadedImage] = []
            frames: list[int | None] = []
            for item in part:
                try:
                    loaded.append(item.load(span))
                    frames.append(item.frame)
                except UserError as error:
                    if skip is None:
                        raise
                    skip(error)
            if loaded:
                predictions = _predict_batch(model, pipeline, loaded, score_thr)
                yield from (replace(prediction, frame=frame) for prediction, frame in zip(predictions, frames))


@torch.no_grad()
def _predict_batch(
    model: Model, pipeline: Compose, loaded: Sequence[dict[str, Any] | LoadedImage], score_thr: float
) -> list[Prediction]:
    batch = pseudo_collate([_prepare(pipeline, image) for image in loaded])
    return [_prediction(image, sample, model, score_thr) for image, sample in zip(loaded, model.test_step(batch))]


@torch.no_grad()
def infer(model: Model, image: Any) -> dict[str, np.ndarray]:
    """The raw outputs of a model of :func:`load` for one image, named as in an exported file.

    Args:
        model: from :func:`load`.
        image: one image, as for :func:`predict`.

    Returns:
        ``images``, the network input float32 (3, H, W), and the outputs by name, without the batch dimension and in
        pixels of the network input.
    """
    images = prepared_input(model, image)
    values = [value for value in model.infer(images) if value is not None]
    names = [output.name for output in model.outputs(images.shape[2], images.shape[3])]
    return {name: value[0].cpu().numpy() for name, value in zip(("images", *names), (images, *values), strict=True)}


def prepared_input(model: Model, image: Any) -> torch.Tensor:
    """The network input float32 (1, 3, H, W) that a model of :func:`load` makes of one image, as for :func:`infer`."""
    batch = pseudo_collate([_prepare(_pipeline(model), _entry(model, image))])
    images: torch.Tensor = model.data_preprocessor(batch, False)["inputs"]
    return images


def _pipeline(model: Model) -> Compose:
    with DefaultScope.overwrite_default_scope(model.cfg.default_scope):
        return Compose(innermost(model.cfg.test_dataloader.dataset).pipeline)


def _prediction(entry: dict[str, Any] | LoadedImage, sample: Any, model: Model, score_thr: float) -> Prediction:
    fields = dict(class_metadata(model.dataset_meta), pixel_range=pixel_range(model.cfg))
    image: str | np.ndarray
    if isinstance(entry, dict):
        image = str(entry["img_path"])
    else:
        image, fields["name"], fields["size"] = entry.source, entry.name, entry.pixels.shape[:2]
    fields.update(exit_score=sample.get("exit_score"), exited=sample.get("exited"))
    return prediction_of(sample, image, score_thr, **fields)


def prediction_of(sample: Any, image: str | np.ndarray, score_thr: float, **fields: Any) -> Prediction:
    """The prediction in a data sample of a model.

    Args:
        sample: with ``pred_instances``, ``pred_sem_seg``, or both.
        image: path, or the image uint8 (H, W, 3) BGR.
        score_thr: minimum score of detections.
        fields: others of :class:`Prediction`.
    """
    labels: Any = sample.pred_sem_seg.data[0].cpu().numpy() if "pred_sem_seg" in sample else None
    if "pred_instances" not in sample:
        return Prediction.of_labels(image, labels, **fields)
    detections = sample.pred_instances[sample.pred_instances.scores >= score_thr]
    boxes, scores = detections.bboxes.float().cpu().numpy(), detections.scores.float().cpu().numpy()
    prediction = Prediction(image, boxes, scores, detections.labels.cpu().numpy(), segmentation=labels, **fields)
    parts = {name: detections[name].cpu().numpy() for name in ("masks", "keypoints") if name in detections}
    return replace(prediction, **parts)


def _entry(model: Model, image: Any, index: int = 0) -> dict[str, Any] | LoadedImage:
    """A copy of a data info, or a loaded image."""
    return dict(image) if isinstance(image, dict) else load_image(image, index, pixel_range(model.cfg))


def _prepare(pipeline: Compose, image: dict[str, Any] | LoadedImage) -> dict:
    if isinstance(image, dict):
        return pipeline(dict(image))
    size = image.pixels.shape[:2]
    info = dict(img=image.pixels, img_path=str(image.name), img_id=0, img_shape=size, ori_shape=size)
    for transform in pipeline.transforms[1:]:  # the image is loaded already
        info = transform(info)
    return info
