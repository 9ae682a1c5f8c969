import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError


def predicted(image: str | np.ndarray, **more: object) -> Prediction:
    """A dog 0.9 at (10, 20) to (40, 60) and a cat 0.2."""
    return Prediction(
        image=image,
        boxes=np.array([[10, 20, 40, 60], [0.5, 0, 5, 5]], np.float32),
        scores=np.array([0.9, 0.2], np.float32),
        labels=np.array([1, 0]),
        classes=("cat", "dog"),
        category_ids=(3, 7),
        **more,  # type: ignore[arg-type]
    )


def test_coco_by_hand():
    assert predicted("a.jpg").to_coco(5) == [
        {"image_id": 5, "category_id": 7, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.9},
        {"image_id": 5, "category_id": 3, "bbox": [0.5, 0.0, 4.5, 5.0], "score": 0.2},
    ]
    nothing = predicted("a.jpg").filter(1.0)
    assert len(nothing) == 0 and nothing.to_coco(1) == []


def test_pycocotools_reads_it(tmp_path):
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {"images": [{"id": 5}], "categories": [{"id": 3}, {"id": 7}], "annotations": []}
    coco.createIndex()
    read = coco.loadRes(predicted("a.jpg").to_coco(5))
    assert [x["area"] for x in read.loadAnns(read.getAnnIds(imgIds=[5]))] == [1200.0, 22.5]


def test_filter_keeps_everything_together():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:4] = True
    points = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    found = predicted("a.jpg", masks=masks, keypoints=points).filter(0.9)  # "at least", in float32 as well
    assert len(found) == 1 and found.labels.tolist() == [1]
    assert found.masks is not None and found.masks.sum() == 16
    assert found.keypoints is not None and found.keypoints.tolist() == points[:1].tolist()


def test_repr_names_the_best():
    assert repr(predicted("a.jpg")) == "Prediction(a.jpg: 2 detections: dog 0.90, cat 0.20)"
    array = np.zeros((4, 6, 3), np.uint8)
    assert repr(predicted(array).filter(1)) == "Prediction(array (4, 6, 3): 0 detections)"


def test_drawing_marks_the_box_only_above_the_threshold(tmp_path):
    image = np.full((80, 90, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    picture = predicted(str(tmp_path / "photo.png")).draw(tmp_path / "drawn")
    changed = (picture != image).any(axis=2)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    assert changed[20:60, 10].all() and changed[58:62, 10:40].any(axis=0).all()  # left and lower side of the dog
    assert not changed[2:5, :4].any()  # the cat scores 0.2
    assert not (predicted(image).draw(score_thr=0.95) != image).any()
    assert (image == 128).all()  # the picture is a copy
    saved = cv2.imread(str(tmp_path / "drawn" / "photo.jpg"))
    assert np.abs(saved.astype(int) - picture).mean() < 4


def test_names_of_pictures(tmp_path):
    image = np.zeros((80, 90, 3), np.uint8)
    assert predicted("folder/photo.one.jpg").stem == "photo.one"
    assert predicted(image).stem == "image"
    predicted(image, name="film_000003").draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["film_000003.jpg"]


def test_the_image_itself_is_never_overwritten(tmp_path):
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), np.zeros((80, 90, 3), np.uint8))
    before = photo.read_bytes()
    with pytest.raises(UserError, match="the folder of the image itself"):
        predicted(str(photo)).draw(tmp_path)
    assert photo.read_bytes() == before
    with pytest.raises(UserError, match=r"none\.jpg: the image cannot be read"):
        predicted(str(tmp_path / "none.jpg")).draw()


def full(image: str | np.ndarray) -> Prediction:
    """The same dog and cat with masks, two keypoints each and a semantic map of 80 x 90."""
    masks = np.zeros((2, 80, 90), bool)
    masks[0, 30:50, 15:35] = True
    masks[1, 1:4, 1:3] = True
    points = np.array([[[12, 25, 0.9], [30.12345, 100.5, 0.2]], [[1, 1, 0.8], [2, 2, 0.7]]], np.float32)
    regions = np.zeros((80, 90), np.uint8)
    regions[:, 60:] = 2
    return predicted(
        image,
        masks=masks,
        keypoints=points,
        keypoint_names=("nose", "tail"),
        skeleton=((0, 1),),
        segmentation=regions,
        semantic_classes=("grass", "water", "sky"),
    )


def test_coco_with_masks_and_keypoints():
    from pycocotools import mask as coco_masks

    found = full("a.jpg")
    dog, cat = found.to_coco(5)
    assert dog["keypoints"] == [12, 25, 0.9, 30.123, 100.5, 0.2] and cat["keypoints"] == [1, 1, 0.8, 2, 2, 0.7]
    assert dog["bbox"] == [10, 20, 30, 40] and dog["score"] == 0.9
    for row, mask in zip((dog, cat), found.masks):  # type: ignore[arg-type]
        np.testing.assert_array_equal(coco_masks.decode(row["segmentation"]).astype(bool), mask)
    assert json.loads(json.dumps([dog, cat])) == [dog, cat]
    nothing = found.filter(1.0)
    assert nothing.to_coco(1) == [] and nothing.segmentation is not None


@pytest.mark.parametrize("kind", ["segm", "keypoints"])
def test_pycocotools_scores_what_is_written(kind):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = full("a.jpg").to_coco(5)
    truth = [
        {
            **row,
            "id": i + 1,
            "iscrowd": 0,
            "area": 400,
            "num_keypoints": 2,
            "keypoints": [*points[:2], 2, *points[3:5], 2],
        }
        for i, (row, points) in enumerate((row, row["keypoints"]) for row in rows)
    ]
    coco = COCO()
    images = [{"id": 5, "height": 80, "width": 90}]
    coco.dataset = {"images": images, "categories": [{"id": 3}, {"id": 7}], "annotations": truth}
    coco.createIndex()
    judge = COCOeval(coco, coco.loadRes(rows), kind)
    if kind == "keypoints":
        judge.params.kpt_oks_sigmas = np.full(2, 0.05)
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"]
    assert precision[precision > -1].min() == pytest.approx(1)


def test_repr_with_everything():
    said = "Prediction(a.jpg: 2 detections: dog 0.90, cat 0.20; masks; 2 keypoints each; grass 67%, sky 33%)"
    assert repr(full("a.jpg")) == said
    assert "0 detections; masks" in repr(full("a.jpg").filter(1.0))
    labels = Prediction.of_labels("b.jpg", np.zeros((4, 4), np.uint8), classes=("grass",), category_ids=(0,))
    assert repr(labels) == "Prediction(b.jpg: grass 100%)"


def test_drawing_shows_all_there_is():
    image = np.full((80, 90, 3), 128, np.uint8)
    found = full(image)
    picture = found.draw()
    changed = (picture != image).any(axis=2)
    assert changed[:, 60:].all() and changed[32:48, 17:33].all()  # sky, mask of the dog
    assert tuple(picture[70, 80]) == (64, 128, 128)  # half of the third color, (0, 128, 128) in BGR, half of 128
    # its tail scores 0.2: it is left out, and so is the line to it
    bare = replace(found, masks=None, segmentation=None)
    without = replace(bare, keypoints=found.keypoints[:, :1], skeleton=())  # type: ignore[index]
    np.testing.assert_array_equal(bare.draw(), without.draw())
    assert (bare.draw(score_thr=0.1) != without.draw(score_thr=0.1)).any()
    assert found.keypoints is not None and found.keypoints[0, 1, 2] == np.float32(0.2)  # they stay as they were


def test_label_maps_beside_objects_have_their_own_colors(tmp_path):
    from PIL import Image

    found = full("a.jpg")
    with Image.open(found.save_labels(tmp_path)) as image:
        np.testing.assert_array_equal(np.asarray(image), found.segmentation)
        assert image.getpalette()[:9] == [128, 0, 0, 0, 128, 0, 128, 128, 0]
    palette = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    with Image.open(replace(found, palette=palette).save_labels(tmp_path / "own")) as image:
        assert image.getpalette()[:9] == list(range(1, 10))
