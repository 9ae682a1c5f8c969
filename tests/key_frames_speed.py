"""AP, time and lateness of key frames, relative to the network on each frame, on videos of tests/moving_camera.py.

    python tests/key_frames_speed.py MODEL.onnx DATA_ROOT --split test --seeds 10 11 --speeds mix --thresholds 0.2 0.3

DATA_ROOT has a data set in COCO form with photographs of one size. Each row is one setting on the videos of all seeds.
Both ways run on each frame in turn, in one process; frames are ready in memory, and decoding is timed apart. ``time``
is that of a frame over that of the network on each frame, by the CPU (all threads together) and by the clock.

``late`` is how many frames after the network on each frame an object is detected that was pasted in or that came in at
the border; not those of the first frame after a cut. It counts from the first of three frames in a row in which a
detection of its class, with a score of at least 0.3, overlaps it by an IoU of 0.5: near the threshold single frames
are chance. ``late (any)`` counts from any first frame.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np

from efftasks.evaluation.coco_metric import coco_scores
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.key_frames import FrameSequence, KeyFrameSettings
from efftasks.runtime.predictor import Predictor

IN_A_ROW = 3
NEVER = 999


class Result(NamedTuple):
    """The predictions of one way for the frames of a video, and the time of each."""

    predictions: list[Prediction]
    times: np.ndarray  # (frames, 2): CPU and clock


def first(detect: Any, pixels: np.ndarray) -> Prediction:
    """The network on one frame."""
    prediction: Prediction = detect(pixels)[0]
    return prediction


def timed(call: Callable[[], Prediction]) -> tuple[Prediction, tuple[float, float]]:
    cpu, clock = time.process_time(), time.perf_counter()
    prediction = call()
    return prediction, (time.process_time() - cpu, time.perf_counter() - clock)


def run(frames: Sequence[Any], detect: Any, settings: Sequence[KeyFrameSettings]) -> list[Result]:
    """The network on each frame, and each of the settings."""
    sequences = [FrameSequence(detect, setting) for setting in settings]
    rows = []
    for number, frame in enumerate(frames):
        ways = [partial(each.predict, frame.pixels, number) for each in sequences]
        rows.append([timed(way) for way in (partial(first, detect, frame.pixels), *ways)])
    return [Result([way[0] for way in ways], np.array([way[1] for way in ways])) for ways in zip(*rows)]


def average_precision(frames: Sequence[Any], predictions: Sequence[Prediction]) -> float:
    """COCO AP over all frames; hardly visible objects are ignored."""
    height, width = frames[0].pixels.shape[:2]
    categories = sorted({seen.category for frame in frames for seen in frame.objects})
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for i, (frame, prediction) in enumerate(zip(frames, predictions, strict=True)):
        rows += prediction.to_coco(i)
        for seen in frame.objects:
            x1, y1, x2, y2 = map(float, seen.box)
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=i, category_id=seen.category, bbox=box, area=box[2] * box[3])
                | dict(iscrowd=int(seen.ignored))
            )
    truth = dict(
        images=[dict(id=i, width=width, height=height) for i in range(len(frames))],
        annotations=annotations,
        categories=[dict(id=category, name=str(category)) for category in categories],
    )
    return coco_scores(truth, rows)[0]["bbox_mAP"]


def visits(frames: Sequence[Any], predictions: Sequence[Prediction]) -> dict[tuple[int, int], list[bool]]:
    """Whether each object is detected in each frame of a stay: (track, first frame) -> a bool for each frame.

    Stays that begin at a cut, or in the first frame, are left out.
    """
    stays: dict[tuple[int, int], list[bool]] = {}
    now: dict[int, tuple[int, int]] = {}
    at_cut: set[tuple[int, int]] = set()
    for i, (frame, prediction) in enumerate(zip(frames, predictions, strict=True)):
        before, now = ({} if frame.cut else now), {}
        categories = np.asarray(prediction.category_ids)[prediction.labels]
        for seen in frame.objects:
            if not seen.ignored:
                key = now[seen.track] = before.get(seen.track, (seen.track, i))
                if frame.cut and key[1] == i:
                    at_cut.add(key)
                boxes = prediction.boxes[(prediction.scores >= 0.3) & (categories == seen.category)]
                stays.setdefault(key, []).append(bool((overlaps(seen.box, boxes) >= 0.5).any()))
    return {key: hits for key, hits in stays.items() if key not in at_cut}


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of a box with others."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.maximum(high - low, 0).prod(1)
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common)


def lateness(
    frames: Sequence[Any], reference: Sequence[Prediction], predictions: Sequence[Prediction], in_a_row: int = IN_A_ROW
) -> list[int]:
    """Frames by which new objects are detected later than by the reference; ``NEVER`` of those that are not.

    Objects that the reference does not detect are left out, and those that leave before they can be judged.
    """
    late = []
    own = visits(frames, predictions)
    for key, hits in visits(frames, reference).items():
        first, ours = first_run(hits, in_a_row), first_run(own[key], in_a_row)
        if first is not None and ours is not None:
            late.append(ours - first)
        elif first is not None and len(hits) - first >= in_a_row + 4:
            late.append(NEVER)
    return late


def first_run(hits: Sequence[bool], in_a_row: int) -> int | None:
    return next((i for i in range(len(hits) - in_a_row + 1) if all(hits[i : i + in_a_row])), None)


def describe(late: Sequence[int]) -> str:
    if not late:
        return "none"
    p50, p90, p95 = np.percentile(late, (50, 90, 95))
    return f"{p50:.0f}/{p90:.0f}/{p95:.0f}, {np.mean(np.asarray(late) <= 3):.1%} of {len(late)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data_root")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--speeds", nargs="+", default=["mix"], help="mix, shake, or names of SPEEDS")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--thresholds", type=float, nargs="*", default=[KeyFrameSettings.threshold])
    parser.add_argument("--intervals", type=int, nargs="*", default=[], help="max_interval, other than the default")
    parser.add_argument("--every", type=int, nargs="*", default=[4])
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    settings = {f"threshold {value:g}": KeyFrameSettings(threshold=value) for value in args.thresholds}
    settings |= {f"max interval {value}": KeyFrameSettings(max_interval=value) for value in args.intervals}
    settings |= {f"every {value}": KeyFrameSettings(every=value) for value in args.every}
    predictor = Predictor(args.model, threads=args.threads)
    moving_camera = importlib.import_module("moving_camera")  # beside this file
    photos = moving_camera.read_photos(args.data_root, args.split)
    print("speed | setting | AP | of each frame | key frames | time, CPU | time, clock | ms clock | late | late (any)")
    for speed in args.speeds:
        videos = [list(moving_camera.MovingCamera(photos, seed, args.frames, speed)) for seed in args.seeds]
        predictor(videos[0][0].pixels)
        report(speed, videos, predictor, settings)


def report(speed: str, videos: Sequence[Sequence[Any]], detect: Any, settings: dict[str, KeyFrameSettings]) -> None:
    results = [run(video, detect, list(settings.values())) for video in videos]
    frames = [frame for video in videos for frame in video]
    base = average_precision(frames, [p for ways in results for p in ways[0].predictions])
    seconds = np.concatenate([ways[0].times for ways in results]).mean(0)
    print(f"{speed} | each frame | {base:.4f} | 1 | 1 | 1 | 1 | {seconds[1] * 1e3:.2f} | 0 | 0", flush=True)
    for i, name in enumerate(settings, start=1):
        predictions = [p for ways in results for p in ways[i].predictions]
        share = np.mean([p.carried_from is None for p in predictions])
        mean = np.concatenate([ways[i].times for ways in results]).mean(0)
        late, any_late = (
            [n for v, ways in zip(videos, results) for n in lateness(v, ways[0].predictions, ways[i].predictions, row)]
            for row in (IN_A_ROW, 1)
        )
        ap = average_precision(frames, predictions)
        print(
            f"{speed} | {name} | {ap:.4f} | {ap / base:.3f} | {share:.3f} | {mean[0] / seconds[0]:.3f} | "
            f"{mean[1] / seconds[1]:.3f} | {mean[1] * 1e3:.2f} | {describe(late)} | {describe(any_late)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
