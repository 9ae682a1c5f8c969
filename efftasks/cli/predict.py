"""``efftasks predict``: draw and save predictions."""

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
    import numpy as np

    from efftasks.imaging.prediction import Prediction

Step = TypeVar("Step")

EXAMPLES = """examples:
  efftasks predict out/model.onnx photo.jpg
  efftasks predict out/model.onnx photos/ --out results --score-thr 0.4
  efftasks predict out/model.onnx "photos/**/*.jpg" --batch-size 8
  efftasks predict out/model.onnx film.mp4
  efftasks predict best.pth photos/ --config my_config.py

Writes a picture for each image and predictions.json: COCO results, with the lists of images and categories. Masks of
objects are in it as run lengths, keypoints as x, y and score. Label maps are written to labels/ as PNGs with a palette:
the class index of each pixel.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes

    suffixes = artifact_suffixes()
    parser = subparsers.add_parser(
        "predict",
        help="predict on images or a video",
        description=f"Predict with an exported artifact ({suffixes}), or with a checkpoint (.pth) and its config.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=f"artifact ({suffixes}), or checkpoint (.pth) with --config")
    parser.add_argument("source", metavar="SOURCE", help="image, folder, glob pattern or video file")
    parser.add_argument("--config", help="config of a checkpoint")
    parser.add_argument("--out", default="predictions", help="folder (default: predictions)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="minimum score of detections (default 0.3)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--backend", choices=tuple(BACKENDS), help="runtime of an artifact (default: by its suffix)")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: its choice)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict, draw the pictures, and write ``predictions.json``."""
    from efftasks.imaging.images import VIDEO_SUFFIXES
    from efftasks.imaging.sources import find_images
    from efftasks.structures.errors import UserError
    from efftasks.structures.suffixes import is_checkpoint

    _check(args)
    timed_predict = _TimedPredict(_checkpoint(args) if is_checkpoint(args.model) else _artifact(args))
    video = Path(args.source).suffix.lower() in VIDEO_SUFFIXES
    paths = [] if video else find_images(args.source)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    names = _free_names(out, paths)
    output = _Results(out)
    skipped: list[str] = []
    predictions = (
        _frames(args.source, timed_predict) if video else _images(paths, args.batch_size, timed_predict, skipped)
    )
    for name, prediction in predictions:
        path = names.get(name) or out / f"{prediction.stem}.jpg"
        picture = prediction.draw(score_thr=args.score_thr)
        _write_picture(path, picture)
        output.add(name, path.stem, prediction, picture.shape[0], picture.shape[1])
    if skipped and len(skipped) == len(paths):
        raise UserError(f"{args.source}: none of the {len(paths)} images can be read, the first: {skipped[0]}")
    output.save()
    for reason in skipped:
        print(f"skipped, cannot be read: {reason}")
    count = len(output.images)
    milliseconds = timed_predict.seconds / max(1, count) * 1e3
    print(f"{count} images, {milliseconds:.0f} ms each to read and predict: {output.summary()}")
    print(f"{out}")
    return 0 if count else 1


class _Results:
    """The content of ``predictions.json``, and counts for the summary.

    Args:
        out: folder of the file and of ``labels/``.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[int, dict[str, Any]] = {}
        self._semantic_classes: tuple[str, ...] = ()
        self._objects: Counter[str] = Counter()
        self._pixels: Counter[str] = Counter()

    def add(self, name: str, stem: str, prediction: Prediction, height: int, width: int) -> None:
        """Add the predictions of an image, and write its label map as ``labels/<stem>.png``."""
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        if prediction.segmentation is not None:
            labels = replace(prediction, name=stem).save_labels(self._out / "labels")
            self.images[-1]["segmentation"] = labels.relative_to(self._out).as_posix()
            self._pixels.update(_pixels(prediction.segmentation, prediction.segmentation_names))
        self._annotations.extend(prediction.to_coco(image_id))
        self._objects.update(prediction.classes[label] for label in prediction.labels)
        self._categories.update((category["id"], category) for category in _categories(prediction))
        self._semantic_classes = prediction.semantic_classes

    def save(self) -> None:
        """Write ``predictions.json``."""
        result: dict[str, Any] = {
            "images": self.images,
            "categories": list(self._categories.values()),
            "annotations": self._annotations,
        }
        if self._semantic_classes:
            result["semantic_classes"] = list(self._semantic_classes)
        (self._out / "predictions.json").write_text(json.dumps(result) + "\n", encoding="utf-8")

    def summary(self) -> str:
        """The number of objects of each class, and the share of pixels of each semantic class."""
        total = max(1, self._pixels.total())
        objects = [f"{count} {name}" for name, count in self._objects.most_common()]
        pixels = [f"{count / total:.1%} {name}" for name, count in self._pixels.most_common()]
        return ", ".join(objects + pixels) or "nothing"


def _pixels(segmentation: np.ndarray, names: Sequence[str]) -> Counter[str]:
    """The number of pixels of each class."""
    import numpy as np

    pixels = np.bincount(segmentation.ravel(), minlength=len(names))
    return Counter({name: int(count) for name, count in zip(names, pixels) if count})


def _categories(prediction: Prediction) -> list[dict[str, Any]]:
    """The categories as in COCO files, where skeletons count from 1."""
    points: dict[str, Any] = {}
    if prediction.keypoints is not None:
        points["keypoints"] = list(prediction.keypoint_names)
        points["skeleton"] = [[a + 1, b + 1] for a, b in prediction.skeleton]
    return [{"id": key, "name": x, **points} for key, x in zip(prediction.category_ids, prediction.classes)]


class _TimedPredict:
    """A prediction function that sums the time it takes."""

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
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f"--out: {args.out} is a file, expected a folder")


def _free_names(out: Path, paths: Sequence[str]) -> dict[str, Path]:
    """A path of the picture of each image, unique, and none of an image that is read."""
    used = {Path(path).resolve() for path in paths}
    names = {}
    for path in paths:
        stem = Path(path).stem
        candidates = (out / f"{stem}{end}.jpg" for end in ("", *(f"_{i}" for i in range(1, len(paths) + 2))))
        names[path] = next(name for name in candidates if name.resolve() not in used)
        used.add(names[path].resolve())
    return names


def _frames(source: str, predict: _TimedPredict) -> Iterator[tuple[str, Prediction]]:
    """Yield (name, prediction) of every frame of a video."""
    from efftasks.runtime.video import read_frames

    for i, frame in enumerate(_progress(read_frames(source), None)):
        name = f"{Path(source).stem}_{i:06d}"
        yield f"{name}.jpg", replace(predict([frame])[0], name=name)


def _images(
    paths: Sequence[str], batch_size: int, predict: _TimedPredict, skipped: list[str]
) -> Iterator[tuple[str, Prediction]]:
    """Yield (path, prediction) of every image; for those that cannot be read the reason is added to ``skipped``."""
    from efftasks.structures.errors import UserError

    for start in _progress(range(0, len(paths), batch_size), -(-len(paths) // batch_size)):
        part = paths[start : start + batch_size]
        try:
            batch_predictions = predict(part)
        except UserError:
            if len(paths) == 1:
                raise
            batch_predictions = []
        if batch_predictions:
            yield from zip(part, batch_predictions)
            continue
        for path in part:  # one of the batch cannot be read: predict the others
            try:
                yield path, predict([path])[0]
            except UserError as error:
                skipped.append(str(error))


def _artifact(args: argparse.Namespace) -> Callable[[Sequence[Any]], list[Prediction]]:
    from efftasks.runtime.predictor import Predictor

    predictor = Predictor(args.model, args.backend, threads=args.threads, score_thr=args.score_thr)
    return lambda images: predictor(list(images), batch_size=args.batch_size)


def _checkpoint(args: argparse.Namespace) -> Callable[[Sequence[Any]], list[Prediction]]:
    from efftasks.runtime.backends.table import whose_part
    from efftasks.structures.errors import UserError

    if args.config is None:
        if (whole := whose_part(args.model)) is not None:
            raise UserError(f"{args.model}: got a part of an exported file, expected the other one: {whole}")
        raise UserError(f"--config: missing, a checkpoint ({args.model}) needs its config; an exported file does not")
    if args.backend is not None:
        raise UserError(f"--backend: got {args.backend!r}, but {args.model} is a checkpoint, which PyTorch runs")
    from efftasks import apis

    model = apis.load(args.config, args.model)
    return lambda images: apis.predict(model, images, score_thr=args.score_thr, batch_size=args.batch_size)


def _write_picture(path: Path, picture: Any) -> None:
    from efftasks.imaging.drawing import jpeg_of
    from efftasks.structures.errors import WorkError

    try:
        path.write_bytes(jpeg_of(picture))
    except OSError as error:
        raise WorkError(f"{path}: the picture could not be written ({error.strerror})") from error


def _progress(steps: Iterable[Step], total: int | None) -> Iterable[Step]:
    try:
        from tqdm import tqdm
    except ImportError:  # prediction itself needs numpy, OpenCV and the runtime alone
        return steps
    return tqdm(steps, total=total, desc="predict", disable=None, leave=False)
