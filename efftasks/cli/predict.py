"""``efftasks predict``: draw and write down what a model finds."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from efftasks.structures.prediction import Prediction

Step = TypeVar("Step")

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

EXAMPLES = """examples:
  efftasks predict out/model.onnx photo.jpg
  efftasks predict out/model.onnx photos/ --out found --score-thr 0.4
  efftasks predict out/model.onnx "photos/**/*.jpg" --batch-size 8
  efftasks predict out/model.onnx film.mp4
  efftasks predict best.pth photos/ --config my_config.py

Writes a picture for each image and predictions.json: COCO results, with the lists of images and categories. A semantic
segmenter's label maps go to labels/ as PNG: the index of a class in each pixel, coloured by a palette.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "predict",
        help="predict on images or a video",
        description="Predict with an exported artifact (.onnx), or with a checkpoint (.pth) and its config.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="artifact (.onnx), or checkpoint (.pth) with --config")
    parser.add_argument("source", metavar="SOURCE", help="image, folder, glob pattern or video file")
    parser.add_argument("--config", help="config of a checkpoint")
    parser.add_argument("--out", default="predictions", help="folder (default: predictions)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="least score drawn and written (default 0.3)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: its choice)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict, draw, write."""
    from efftasks.runtime.predictor import find_images

    _check(args)
    clock = _Clock(_artifact(args) if Path(args.model).suffix.lower() not in (".pth", ".pt") else _checkpoint(args))
    video = Path(args.source).suffix.lower() in VIDEO_SUFFIXES
    paths = [] if video else find_images(args.source)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    names = _free_names(out, paths)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: Counter[str] = Counter()
    skipped: list[str] = []
    categories: dict[int, str] = {}
    results = _frames(args.source, clock) if video else _images(paths, args.batch_size, clock, skipped)
    for name, prediction in results:
        image_id = len(images) + 1
        picture = prediction.draw(score_thr=args.score_thr)
        path = names.get(name) or out / f"{prediction.stem}.jpg"
        _write_picture(path, picture)
        images.append({"id": image_id, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
        if prediction.segmentation is not None:
            labels = replace(prediction, name=path.stem).save_labels(out / "labels")
            images[-1]["segmentation"] = labels.relative_to(out).as_posix()
        annotations.extend(prediction.to_coco(image_id))
        found.update(_counts(prediction))
        categories.update(zip(prediction.category_ids, prediction.classes))
    result = {
        "images": images,
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        "annotations": annotations,
    }
    (out / "predictions.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    for name in skipped:
        print(f"skipped, cannot be read: {name}")
    counts = _summary(found, any("segmentation" in image for image in images))
    each = clock.seconds / max(1, len(images)) * 1e3
    print(f"{len(images)} images, {each:.0f} ms each to read and predict: {counts}")
    print(f"{out}")
    return 0 if images else 1


def _counts(prediction: Prediction) -> Counter[str]:
    """Objects of each class, or pixels."""
    if prediction.segmentation is None:
        return Counter(prediction.classes[label] for label in prediction.labels)
    import numpy as np

    pixels = np.bincount(prediction.segmentation.ravel(), minlength=len(prediction.classes))
    return Counter({name: int(count) for name, count in zip(prediction.classes, pixels) if count})


def _summary(found: Counter[str], are_pixels: bool) -> str:
    total = max(1, sum(found.values()))
    parts = [f"{count / total:.1%} {x}" if are_pixels else f"{count} {x}" for x, count in found.most_common()]
    return ", ".join(parts) or "nothing"


class _Clock:
    """A predicting function that adds up its time."""

    def __init__(self, predict: Callable[[Sequence[Any]], list[Prediction]]) -> None:
        self._predict = predict
        self.seconds = 0.0

    def __call__(self, images: Sequence[Any]) -> list[Prediction]:
        start = time.perf_counter()
        try:
            return self._predict(images)
        finally:
            self.seconds += time.perf_counter() - start


def _check(args: argparse.Namespace) -> None:
    from efftasks.structures.errors import UserError

    if args.batch_size < 1:
        raise UserError(f"--batch-size: got {args.batch_size}, expected an integer from 1")
    if not 0 <= args.score_thr <= 1:
        raise UserError(f"--score-thr: got {args.score_thr}, expected a number in 0 to 1")


def _free_names(out: Path, paths: Sequence[str]) -> dict[str, Path]:
    """A picture's path for each image: no two the same, and none an image that is read."""
    taken = {Path(path).resolve() for path in paths}
    names = {}
    for path in paths:
        stem = Path(path).stem
        candidates = (out / f"{stem}{end}.jpg" for end in ("", *(f"_{i}" for i in range(1, len(paths) + 2))))
        names[path] = next(name for name in candidates if name.resolve() not in taken)
        taken.add(names[path].resolve())
    return names


def _frames(source: str, predict: _Clock) -> Iterator[tuple[str, Prediction]]:
    """(name, prediction) of every frame of a video."""
    from efftasks.runtime.video import read_frames

    for i, frame in enumerate(_progress(read_frames(source), None)):
        name = f"{Path(source).stem}_{i:06d}"
        yield f"{name}.jpg", replace(predict([frame])[0], name=name)


def _images(
    paths: Sequence[str], batch_size: int, predict: _Clock, skipped: list[str]
) -> Iterator[tuple[str, Prediction]]:
    """(path, prediction) of every image; those that cannot be read go to ``skipped``."""
    from efftasks.structures.errors import UserError

    for start in _progress(range(0, len(paths), batch_size), -(-len(paths) // batch_size)):
        part = paths[start : start + batch_size]
        try:
            found = predict(part)
        except UserError:
            if len(paths) == 1:
                raise
            found = []
        if found:
            yield from zip(part, found)
            continue
        for path in part:  # one of them cannot be read: the others count
            try:
                yield path, predict([path])[0]
            except UserError:
                skipped.append(path)


def _artifact(args: argparse.Namespace) -> Callable[[Sequence[Any]], list[Prediction]]:
    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(args.model, threads=args.threads, score_thr=args.score_thr)
    return lambda images: predictor(list(images), batch_size=args.batch_size)


def _checkpoint(args: argparse.Namespace) -> Callable[[Sequence[Any]], list[Prediction]]:
    from efftasks.structures.errors import UserError

    if args.config is None:
        raise UserError(f"--config: missing, a checkpoint ({args.model}) needs its config; an .onnx file does not")
    from efftasks import apis

    model = apis.load(args.config, args.model)
    return lambda images: apis.predict(model, images, score_thr=args.score_thr, batch_size=args.batch_size)


def _write_picture(path: Path, picture: Any) -> None:
    import cv2

    from efftasks.structures.errors import WorkError

    if not cv2.imwrite(str(path), picture):
        raise WorkError(f"{path}: the picture could not be written")


def _progress(steps: Iterable[Step], total: int | None) -> Iterable[Step]:
    try:
        from tqdm import tqdm
    except ImportError:  # it comes with the extra "train"; a device has none
        return steps
    return tqdm(steps, total=total, desc="predict", disable=None, leave=False)
