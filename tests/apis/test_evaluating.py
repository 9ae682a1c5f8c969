"""Scoring anything that predicts: by class names, not by their order, and in pixels of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from efftasks import apis
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError

KINDS = ("bbox", "segm", "keypoints")
SWAPPED = ("dog", "cat")


@pytest.fixture(scope="module")
def root(painted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_pictures(tmp_path_factory.mktemp("painted") / "data")


def scores(
    painted: ModuleType,
    root: Path,
    data_order: Sequence[str] = ("cat", "dog"),
    model_order: Sequence[str] = ("cat", "dog"),
    change: Callable[[Prediction], Prediction] = lambda prediction: prediction,
    **options: Any,
) -> dict[str, float]:
    cfg = painted.config(root, data_order, KINDS)
    model = painted.detector(cfg, model_order)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        return [change(prediction) for prediction in apis.predict(model, entries)]

    return apis.evaluate(cfg, predict, model_order, **options).metrics


@pytest.mark.parametrize("data_order", [("cat", "dog"), SWAPPED])
@pytest.mark.parametrize("model_order", [("cat", "dog"), SWAPPED])
def test_what_is_right_scores_one_in_whatever_order_the_classes_are(painted, root, data_order, model_order):
    found = scores(painted, root, data_order, model_order)
    assert [found[f"coco/{kind}_mAP"] for kind in KINDS] == pytest.approx([1.0] * 3)


def test_exchanged_labels_score_nothing(painted, root):
    found = scores(painted, root, change=lambda p: replace(p, labels=1 - p.labels))
    assert [found[f"coco/{kind}_mAP"] for kind in KINDS] == pytest.approx([0.0] * 3)


def test_one_class_found_is_half_of_it(painted, root):
    found = scores(painted, root, change=lambda p: replace(p, scores=p.scores * (p.labels == 0)).filter(0.5))
    assert [found[f"coco/{kind}_mAP"] for kind in KINDS] == pytest.approx([0.5] * 3)


def test_missed_objects_cost_their_share_of_recall(painted, root):
    """Of three cats and three dogs the small picture's are missed: recall ends at 2 / 3, or at 67 of 101 steps."""
    found = scores(painted, root, change=lambda p: p.filter(1.0) if str(p.image).endswith("1.png") else p)
    assert found["coco/bbox_mAP"] == pytest.approx(67 / 101)


def test_boxes_a_little_off_pass_the_thresholds_they_reach(painted, root):
    """Each box 0.72 of its height: 5 of the thresholds 0.50, 0.55, ..., 0.95."""

    def shorter(prediction: Prediction) -> Prediction:
        boxes = prediction.boxes.copy()
        boxes[:, 3] -= 0.28 * (boxes[:, 3] - boxes[:, 1])
        return replace(prediction, boxes=boxes)

    found = scores(painted, root, change=shorter)
    assert found["coco/bbox_mAP_50"] == pytest.approx(1.0) and found["coco/bbox_mAP_75"] == pytest.approx(0.0)
    assert found["coco/bbox_mAP"] == pytest.approx(0.5)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 9])
def test_batches_are_of_the_size_asked_for_and_leave_nothing_out(painted, root, batch_size):
    sizes, cfg = [], painted.config(root)
    model = painted.detector(cfg)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        sizes.append(len(entries))
        return apis.predict(model, entries)

    found = apis.evaluate(cfg, predict, painted.NAMES, batch_size=batch_size)
    assert sizes == {1: [1, 1, 1, 1], 3: [3, 1], 4: [4], 9: [4]}[batch_size]
    assert found.metrics["coco/bbox_mAP"] == pytest.approx(1.0) and found.predictions == {}


def test_what_is_kept_is_spread_over_the_data(painted, root):
    cfg = painted.config(root)
    model = painted.detector(cfg)
    for keep, indices in ((1, [0]), (2, [0, 3]), (3, [0, 1, 3]), (50, [0, 1, 2, 3])):
        kept = apis.evaluate(cfg, lambda x: apis.predict(model, x), painted.NAMES, batch_size=3, keep=keep).predictions
        assert {i: prediction.stem for i, prediction in kept.items()} == {i: str(i) for i in indices}


def test_fewer_predictions_than_images_are_an_error(painted, root):
    cfg = painted.config(root)
    model = painted.detector(cfg)
    with pytest.raises(ValueError, match="got 3 predictions for 4 images"):
        apis.evaluate(cfg, lambda x: apis.predict(model, x)[:3], painted.NAMES)


def test_other_classes_are_named(painted, root):
    cfg = painted.config(root)
    with pytest.raises(UserError, match=r"classes \('cat', 'cow'\) are not those of the test data, \('cat', 'dog'\)"):
        apis.evaluate(cfg, lambda entries: [], ("cat", "cow"))


def test_truth_is_drawn_on_the_left_and_predictions_on_the_right(painted, root, tmp_path):
    cfg = painted.config(root, kinds=KINDS)
    model = painted.detector(cfg)
    kept = apis.evaluate(cfg, lambda x: apis.predict(model, x), painted.NAMES, keep=4).predictions
    kept[2] = kept[2].filter(1.0)  # nothing was found there
    paths = apis.draw_comparison(cfg, kept, tmp_path / "drawn", score_thr=0.5)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png", "3.png"]
    for i, path in enumerate(paths):
        picture, image = cv2.imread(str(path)), cv2.imread(str(root / "images" / f"{i}.png"))
        height, width = painted.SCENES[i][0]
        assert picture.shape == (height, 2 * width + 4, 3)
        truth, gap, prediction = np.split(picture, [width, width + 4], axis=1)
        assert (gap == 255).all() and not np.array_equal(truth, image)
        assert np.array_equal(prediction, image) == (i == 2)


def test_a_threshold_leaves_out_of_the_picture_what_scores_less(painted, root, tmp_path):
    cfg = painted.config(root)
    model = painted.detector(cfg)
    kept = dict(enumerate(apis.predict(model, apis.test_images(cfg))))
    (path,) = apis.draw_comparison(cfg, {2: kept[2]}, tmp_path, score_thr=0.85)  # its dog scores 0.8
    image = cv2.imread(str(root / "images" / "2.png"))
    assert np.array_equal(cv2.imread(str(path))[:, -image.shape[1] :], image)


REGIONS = ("floor", "cat", "dog")


@pytest.fixture(scope="module")
def maps(painted: ModuleType, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.link_label_maps(root, tmp_path_factory.mktemp("maps"))


def read_map(entry: dict[str, Any]) -> np.ndarray:
    return cv2.imread(entry["seg_map_path"], cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_label_maps_are_scored_in_whatever_order_the_classes_are(maps, order):
    """All right, and then dogs called cats: cats are 44 % of both, dogs are not found."""
    cfg = apis.load_config(
        "fpnlite-n_mobilenetv4-conv-s_1xb16-12e_shapes-128",
        {
            "data_root": f"{maps}/",
            "classes": list(REGIONS),
            "test_dataloader.dataset.type": "SemanticFolder",
            "test_dataloader.dataset.data_prefix": dict(img_path="img/val", seg_map_path="ann/val"),
        },
    )
    names = tuple(REGIONS[i] for i in order)
    facts = dict(classes=names, category_ids=(0, 1, 2))
    index = np.array([names.index(name) for name in REGIONS], np.uint8)

    def predict(entries: Sequence[dict], dogs: int = 2) -> list[Prediction]:
        said = [np.where(read_map(entry) == 2, dogs, read_map(entry)) for entry in entries]
        return [Prediction.of_labels(e["img_path"], index[labels], **facts) for e, labels in zip(entries, said)]

    assert apis.evaluate(cfg, predict, names).metrics["mIoU"] == 100.0
    found = apis.evaluate(cfg, lambda entries: predict(entries, dogs=1), names).metrics
    pixels = np.bincount(np.concatenate([read_map(entry).ravel() for entry in apis.test_images(cfg)]))
    assert found["IoU/floor"] == 100.0 and found["IoU/dog"] == 0.0
    assert found["IoU/cat"] == pytest.approx(100 * pixels[1] / (pixels[1] + pixels[2]), abs=0.01)


def test_a_label_map_beside_objects_has_classes_of_its_own(painted, root):
    """Its labels are not brought to the order of the objects' classes; those of the objects are."""
    more = {
        "test_dataloader.dataset.seg_map": "maps/{stem}.png",
        "test_dataloader.dataset.metainfo": dict(classes=SWAPPED, semantic_classes=REGIONS),
        "test_evaluator": [dict(type="CocoMetric", ann_file=f"{root}/annotations/val.json"), dict(type="SemanticIoU")],
    }
    cfg = painted.config(root, SWAPPED)
    cfg.merge_from_dict(more)
    model = painted.detector(cfg)

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        both = zip(entries, apis.predict(model, entries))
        return [replace(p, segmentation=read_map(entry), semantic_classes=REGIONS) for entry, p in both]

    found = apis.evaluate(cfg, predict, painted.NAMES, check=False).metrics
    assert found["coco/bbox_mAP"] == pytest.approx(1.0) and found["mIoU"] == 100.0
