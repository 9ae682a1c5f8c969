"""``efftasks predict``: draw and write down what a model finds."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.structures.prediction import Prediction

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

EXAMPLES = """examples:
  efftasks predict out/model.onnx photo.jpg
  efftasks predict out/model.onnx photos/ --out found --score-thr 0.4
  efftasks predict out/model.onnx "photos/**/*.jpg" --batch-size 8
  efftasks predict out/model.onnx film.mp4
  efftasks predict best.pth photos/ --config my_config.py

Writes a picture for each image and predictions.json: COCO results, with the list of images beside.
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
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    found: Counter[str] = Counter()
    skipped: list[str] = []
    start = time.perf_counter()
    for name, prediction in _predictions(args, skipped):
        image_id = len(images) + 1
        picture = prediction.draw(score_thr=args.score_thr)
        _write_picture(out / f"{Path(name).stem}.jpg", picture)
        images.append({"id": image_id, "file_name": name, "height": picture.shape[0], "width": picture.shape[1]})
        annotations.extend(prediction.to_coco(image_id))
        found.update(prediction.classes[label] for label in prediction.labels)
    seconds = time.perf_counter() - start
    result = {"images": images, "annotations": annotations}
    (out / "predictions.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    for name in skipped:
        print(f"skipped, cannot be read: {name}")
    counts = ", ".join(f"{count} {name}" for name, count in found.most_common()) or "nothing"
    each = seconds / max(1, len(images)) * 1e3
    print(f"{len(images)} images, {each:.0f} ms each with reading and drawing: {counts}")
    print(f"{out}")
    return 0 if images else 1


def _predictions(args: argparse.Namespace, skipped: list[str]) -> Iterator[tuple[str, Prediction]]:
    """(name, prediction) of every image or frame; images that cannot be read go to ``skipped``."""
    from efftasks.runtime.predictor import find_images
    from efftasks.structures.errors import UserError

    predict = _artifact(args) if Path(args.model).suffix == ".onnx" else _checkpoint(args)
    if Path(args.source).suffix.lower() in VIDEO_SUFFIXES:
        from efftasks.runtime.video import read_frames

        for i, frame in enumerate(read_frames(args.source)):
            yield f"{Path(args.source).stem}_{i:06d}.jpg", predict([frame])[0]
        return
    paths = find_images(args.source)
    for start in range(0, len(paths), max(1, args.batch_size)):
        part = paths[start : start + max(1, args.batch_size)]
        try:
            yield from zip(part, predict(part))
        except UserError:
            if len(paths) == 1:
                raise
            for path in part:  # one of them cannot be read: the others count
                try:
                    yield path, predict([path])[0]
                except UserError:
                    skipped.append(path)
        _progress(min(start + len(part), len(paths)), len(paths))


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


def _progress(done: int, total: int) -> None:
    import sys

    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done}/{total} images", end=end, file=sys.stderr, flush=True)
