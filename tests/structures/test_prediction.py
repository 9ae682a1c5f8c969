import cv2
import numpy as np
import pytest

from efftasks.structures.errors import UserError
from efftasks.structures.prediction import Prediction


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
    with pytest.raises(UserError, match=r"none\.jpg: the image is missing"):
        predicted(str(tmp_path / "none.jpg")).draw()
