"""``efftasks predict``: draw and save predictions."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efftasks.cli.key_frame_options import add_key_frame_options, counted, key_frame_settings
from efftasks.cli.label_options import add_label_options, check_label_options, label_writers
from efftasks.cli.options import add_width
from efftasks.cli.score_options import add_score, choose_scores, with_sufficient_scores
from efftasks.cli.size_options import add_sizes, check_sizes, sized_predictor
from efftasks.cli.tile_options import add_tile_options, tile_progress, tile_settings
from efftasks.cli.track_options import add_track_options, check_track_options, make_tracker, model_score, tracked

if TYPE_CHECKING:
    import numpy as np

    from efftasks.imaging.prediction import Prediction
    from efftasks.runtime.key_frames import KeyFrameSettings
    from efftasks.runtime.outputs import Writer
    from efftasks.runtime.predictor import Predictor
    from efftasks.runtime.sources import Source
    from efftasks.runtime.tile_settings import TileSettings
    from efftasks.structures.errors import UserError
    from efftasks.structures.pixel_range import PixelRange

    Stream = Callable[[Source, Callable[[UserError], object] | None], Iterator[Prediction]]

EXAMPLES = """examples:
  efftasks predict dfine-n-coco photo.jpg                            a published checkpoint: efftasks zoo
  efftasks predict out/model.onnx photo.jpg
  efftasks predict out/model.onnx photos/ --out results --score-thr 0.4
  efftasks predict out/model.onnx "photos/**/*.jpg" --batch-size 8 --no-draw --csv
  efftasks predict out/model.onnx film.mp4
  efftasks predict out/model.onnx 0 --max-frames 300
  efftasks predict out/model.onnx rtsp://camera/stream --no-draw --csv
  efftasks predict out/model.onnx photos/ --sizes 192 256 320
  efftasks predict out/model.onnx photos/ --exit-threshold 0.7
  efftasks predict out/model.onnx film.mp4 --key-frames
  efftasks predict out/model.onnx film.mp4 --track
  efftasks predict out/model.onnx photos/ --save-labels coco labelme
  efftasks predict best.pth photos/ --config my_config.py
  efftasks predict out/model.onnx slides/ --tiles --tile-edges 16     large images, tile by tile

Writes a picture for each image, or a video of the frames of a video, and predictions.json: COCO results, with the lists
of images and categories. Masks of objects are in it as run lengths, keypoints as x, y and score. Label maps are written
to labels/ as PNGs with a palette: the class index of each pixel. Everything is written as the run goes on; an interrupt
with Ctrl-C completes the files with what there is.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    from efftasks.runtime.backends.table import BACKENDS, artifact_suffixes

    suffixes = artifact_suffixes()
    parser = subparsers.add_parser(
        "predict",
        help="predict on images, a video or a camera",
        description=f"Predict with an exported artifact ({suffixes}), or with a checkpoint (.pth) and its config.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"artifact ({suffixes}); name of a published checkpoint (efftasks zoo); or checkpoint (.pth) with "
        "--config",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="image, folder, glob pattern, video file, index of a camera (0), or URL of a stream (rtsp://...)",
    )
    parser.add_argument("--config", help="config of a checkpoint")
    add_width(parser)
    parser.add_argument("--out", default="predictions", help="folder (default: predictions)")
    add_score(parser)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--max-frames", type=int, metavar="N", help="end after N images or frames")
    group = parser.add_argument_group("what is written beside predictions.json")
    group.add_argument("--csv", action="store_true", help="predictions.csv: one row an object")
    group.add_argument(
        "--no-draw", action="store_true", help="no pictures and no video; drawing may take the most time"
    )
    group.add_argument("--save-frames", action="store_true", help="a picture of each frame instead of a video")
    add_label_options(group)
    group = parser.add_argument_group("how an artifact is run")
    group.add_argument("--backend", choices=tuple(BACKENDS), help="runtime of an artifact (default: by its suffix)")
    group.add_argument(
        "--provider", help="what the runtime runs on: cpu (default), or another one that it has here, such as cuda"
    )
    group.add_argument("--threads", type=int, help="threads of the runtime (default: its choice)")
    group.add_argument("--readers", type=int, help="threads that read images ahead (default: 1, or 2 on many cores)")
    add_sizes(parser)
    group = parser.add_argument_group("of a network with an early exit")
    group.add_argument(
        "--exit-threshold",
        type=float,
        metavar="T",
        help="take the early answer of images whose exit score is at least T: 0 always, above 1 never (default: as the "
        "file was exported, or the checkpoint trained)",
    )
    add_tile_options(parser)
    add_key_frame_options(parser)
    add_track_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict, and write what was asked for."""
    from contextlib import ExitStack, closing, suppress

    from efftasks.runtime.sources import open_source
    from efftasks.structures.errors import UserError
    from efftasks.structures.suffixes import is_checkpoint

    thresholds = choose_scores(args)
    _check(args)
    check_sizes(args)
    stream = _checkpoint(args) if is_checkpoint(args.model) else _artifact(args)
    skipped: list[UserError] = []
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_source(args.source)))
        tracker = make_tracker(args, source)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        writers = [stack.enter_context(closing(writer)) for writer in _writers(args, source, out)]
        summary = _Summary()
        skip = None if source.total == 1 and not source.video else skipped.append
        predictions = with_sufficient_scores(tracked(stream(source, skip), tracker), thresholds)
        start = time.perf_counter()
        # A camera has no end of its own: an interrupt is the way to leave it.
        with suppress(*[KeyboardInterrupt] if source.live else []):
            for name, prediction in _named(args, source, out, predictions):
                for writer in writers:
                    writer.add(name, prediction)
                summary.add(prediction)
        seconds = time.perf_counter() - start
    if skipped and not summary.count:
        raise UserError(f"{args.source}: none of the {len(skipped)} images can be read, the first: {skipped[0]}")
    for error in skipped:
        print(f"skipped, cannot be read: {error}")
    kind = "frames" if source.video else "images"
    print(f"{summary.count} {kind} in {seconds:.1f} s, {summary.count / seconds:.1f} a second: {summary}")
    print(f"{out}")
    return 0 if summary.count else 1


def _writers(args: argparse.Namespace, source: Source, out: Path) -> Iterator[Writer]:
    from efftasks.runtime.outputs import CocoWriter, CsvWriter, LabelWriter
    from efftasks.runtime.pictures import FreeStems, PictureWriter, VideoWriter
    from efftasks.runtime.tracking import Trails

    annotate = None if args.track is None else Trails()
    yield LabelWriter(out)
    if not args.no_draw and source.video and not args.save_frames:
        stem = FreeStems(out, (".mp4", ".avi"), [args.source]).take(source.name)
        yield VideoWriter(out / stem, source.fps, args.score_thr, annotate)
    elif not args.no_draw:
        yield PictureWriter(out, args.score_thr, annotate)
    if args.csv:
        yield CsvWriter(
            out / "predictions.csv", source.place if source.video else None, has_carried=args.key_frames is not None
        )
    yield from label_writers(args)
    yield CocoWriter(out / "predictions.json")


def _named(
    args: argparse.Namespace, source: Source, out: Path, predictions: Iterator[Prediction]
) -> Iterator[tuple[str, Prediction]]:
    """Yield (name in lists, prediction) with a progress bar; predictions have stems of files that are free."""
    from contextlib import closing

    from efftasks.runtime.pictures import FreeStems

    stems = FreeStems(out, (".jpg",), source.paths)
    total = source.total if args.max_frames is None else min(args.max_frames, source.total or args.max_frames)
    unit = "frame" if source.video else "image"
    with closing(predictions):  # type: ignore[type-var]  # a generator
        for prediction in _progress(islice(predictions, args.max_frames), total, unit):
            if isinstance(prediction.image, str):
                yield prediction.image, replace(prediction, name=stems.take(prediction.stem))
            else:
                yield f"{prediction.stem}.jpg", prediction


def _progress(predictions: Iterator[Prediction], total: int | None, unit: str) -> Iterable[Prediction]:
    """Silent where nobody watches."""
    try:
        from tqdm import tqdm
    except ImportError:  # prediction itself needs numpy, OpenCV and the runtime alone
        return predictions
    return tqdm(predictions, total=total, unit=unit, desc="predict", disable=None, leave=False)


class _Summary:
    """The number of objects of each class, the share of pixels of each semantic class, and what left early."""

    def __init__(self) -> None:
        self.count = self._exited = 0
        self._has_exit = False
        self._objects: Counter[str] = Counter()
        self._pixels: Counter[str] = Counter()

    def add(self, prediction: Prediction) -> None:
        self.count += 1
        self._has_exit |= prediction.exited is not None
        self._exited += bool(prediction.exited)
        if prediction.segmentation is not None:
            self._pixels.update(_pixels(prediction.segmentation, prediction.segmentation_names))
        self._objects.update(prediction.classes[label] for label in prediction.labels)

    def __str__(self) -> str:
        total = max(1, self._pixels.total())
        objects = [f"{count} {name}" for name, count in self._objects.most_common()]
        pixels = [f"{count / total:.1%} {name}" for name, count in self._pixels.most_common()]
        text = ", ".join(objects + pixels) or "nothing"
        share = self._exited / max(1, self.count)
        return f"{text}; {self._exited} left at the early exit ({share:.1%})" if self._has_exit else text


def _pixels(segmentation: np.ndarray, names: Sequence[str]) -> Counter[str]:
    """The number of pixels of each class."""
    import numpy as np

    pixels = np.bincount(segmentation.ravel(), minlength=len(names))
    return Counter({name: int(count) for name, count in zip(names, pixels) if count})


def _check(args: argparse.Namespace) -> None:
    from efftasks.structures.errors import UserError

    for option, value in (("batch-size", args.batch_size), ("max-frames", args.max_frames), ("readers", args.readers)):
        if value is not None and value < 1:
            raise UserError(f"--{option}: got {value}, expected an integer from 1")
    if not 0 <= args.score_thr <= 1:
        raise UserError(f"--score-thr: got {args.score_thr}, expected a number in 0 to 1")
    tile_settings(args)
    check_track_options(args)
    check_label_options(args)
    if Path(args.out).exists() and not Path(args.out).is_dir():
        raise UserError(f"--out: {args.out} is a file, expected a folder")


def _check_one(args: argparse.Namespace) -> None:
    """Ways to look at an image or video are given one at a time."""
    from efftasks.structures.errors import UserError

    ways = {"--sizes": args.sizes or None, "--tiles": args.tiles, "--key-frames": args.key_frames}
    if args.sizes:
        ways["--exit-threshold"] = args.exit_threshold
    given = [name for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{given[1]}: got it with {given[0]}, expected one of them")


def _artifact(args: argparse.Namespace) -> Stream:
    from efftasks.runtime.predictor import Predictor
    from efftasks.structures.errors import UserError

    if args.width is not None:
        raise UserError(f"--width: got {args.width:g}, but {args.model} is an exported file, which has one width")
    if args.config is not None:
        raise UserError(f"--config: got {args.config}, but {args.model} is no checkpoint, and needs none; leave it out")
    tiles, key_frames = tile_settings(args), key_frame_settings(args)
    _check_one(args)
    settings: dict[str, Any] = dict(threads=args.threads, score_thr=model_score(args), provider=args.provider)
    if args.sizes:
        sized = sized_predictor(args, **settings)
        return lambda source, skip: sized.stream(
            source, args.batch_size, skip or "raise", args.readers, keep_pixels=not args.no_draw
        )
    predictor = Predictor(args.model, args.backend, **settings, exit_threshold=args.exit_threshold)
    if tiles is not None:
        return _tiled(args, predictor, tiles)
    if key_frames is not None:
        return _key_frames(args, predictor, key_frames, predictor.spec.input.pixel_range)
    return lambda source, skip: predictor.stream(
        source, args.batch_size, skip or "raise", args.readers, keep_pixels=not args.no_draw
    )


def _tiled(args: argparse.Namespace, predictor: Predictor, tiles: TileSettings) -> Stream:
    """Tile by tile; at the end it prints how many tiles were skipped."""
    from efftasks.runtime.tiles import TiledPredictor

    tiled = TiledPredictor(predictor, tiles, tile_progress())

    def stream(source: Source, skip: Callable[[UserError], object] | None) -> Iterator[Prediction]:
        try:
            yield from tiled.stream(
                source, args.batch_size, skip or "raise", args.readers, keep_pixels=not args.no_draw
            )
        finally:
            print(f"tiles: {tiled.counts.done} looked at, {tiled.counts.skipped} skipped")

    return stream


def _key_frames(
    args: argparse.Namespace,
    detect: Callable[[np.ndarray], list[Prediction]],
    settings: KeyFrameSettings,
    pixel_range: PixelRange | None,
) -> Stream:
    from efftasks.runtime.key_frames import KeyFramePredictor

    predictor = KeyFramePredictor(detect, settings, pixel_range)
    return lambda source, skip: counted(
        predictor.stream(source, 1, skip or "raise", args.readers, keep_pixels=not args.no_draw)
    )


def _checkpoint(args: argparse.Namespace) -> Stream:
    from efftasks.runtime.backends.table import opened_instead_of
    from efftasks.structures.errors import UserError

    if args.config is None:
        if (opened := opened_instead_of(args.model)) is not None:
            raise UserError(f"{args.model}: got a part of an exported file, expected the other one: {opened}")
        raise UserError(f"--config: missing, a checkpoint ({args.model}) needs its config; an exported file does not")
    for option in ("backend", "provider", "tiles"):
        value: Any = getattr(args, option)
        if value is not None:
            raise UserError(f"--{option}: got {value!r}, but {args.model} is a checkpoint, which PyTorch runs")
    from efftasks import apis
    from efftasks.config import pixel_range

    key_frames = key_frame_settings(args)
    model = apis.load(args.config, args.model, width=args.width)
    if args.exit_threshold is not None:
        apis.set_exit_threshold(model, args.exit_threshold)
    if key_frames is not None:
        return _key_frames(
            args, partial(apis.predict, model, score_thr=model_score(args)), key_frames, pixel_range(model.cfg)
        )
    return lambda source, skip: apis.stream(model, source, model_score(args), args.batch_size, skip or "raise")
