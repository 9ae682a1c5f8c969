"""IoU as Cityscapes counts it: against a confusion matrix, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from efftasks import apis
from efftasks.evaluation.semantic_metric import SemanticIoU
from efftasks.imaging.prediction import Prediction
from efftasks.structures.errors import UserError


def score(pairs: list[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]) -> dict[str, float]:
    metric = SemanticIoU()
    metric.dataset_meta = dict(classes=classes)
    for prediction, truth in pairs:
        sample = dict(
            pred_sem_seg=dict(data=torch.from_numpy(prediction)), gt_sem_seg=dict(data=torch.from_numpy(truth))
        )
        metric.process({}, [sample])
    return metric.evaluate(len(pairs))


def logged(caplog, pairs, classes) -> tuple[dict[str, float], list[str]]:
    """The score, and the warnings of mmengine's log."""
    logger = MMLogger.get_instance("semantic_metric", log_level="INFO")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level("WARNING"):
            found = score(pairs, classes)
    finally:
        logger.removeHandler(caplog.handler)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return found, [message for message in messages if "prefix" not in message]  # mmengine's own


def test_by_hand() -> None:
    # road: 3 pixels both say, 1 only the prediction, 1 only the truth -> 3/5. car: 1 both, 1 + 1 -> 1/3. One ignored.
    truth = np.array([[0, 0, 0, 0], [1, 1, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 0, 1], [1, 0, 0, 1]], np.uint8)
    found = score([(prediction, truth)], ("road", "car", "tram"))
    assert found["IoU/road"] == 60.0 and found["IoU/car"] == pytest.approx(33.33)
    assert "IoU/tram" not in found  # neither has it: it does not count
    assert found["mIoU"] == pytest.approx((60 + 100 / 3) / 2, abs=0.01)
    assert found["aAcc"] == pytest.approx(100 * 4 / 6, abs=0.01)


def test_a_mean_over_fewer_classes_says_so_and_names_them(caplog: pytest.LogCaptureFixture) -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 3, 1, 1]], np.uint8)
    found, messages = logged(caplog, [(prediction, truth)], ("road", "car", "tram", "bus"))
    # road 1/2, car 1/1, bus 0/1: it is predicted and counts; tram has no pixel anywhere and does not.
    assert found["mIoU"] == 50.0 and found["mIoU_classes"] == 3
    (message,) = messages
    assert "mIoU is the mean over 3 of 4 classes" in message and "left out: 'tram'" in message
    assert message.endswith("in no label map and predicted, which counts as 0: 'bus'")


def test_where_all_classes_occur_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    both = np.array([[0, 1]], np.uint8)
    found, messages = logged(caplog, [(both, both)], ("road", "car"))
    assert found["mIoU"] == 100.0 and found["mIoU_classes"] == 2 and messages == []


def test_without_any_pixel_to_score_there_is_no_score() -> None:
    pairs = [(np.zeros((2, 3), np.uint8), np.full((2, 3), 255, np.uint8))] * 2
    with pytest.raises(UserError, match="all pixels of 2 label maps are ignored, expected some with a class"):
        score(pairs, ("road", "car"))


def test_pixels_of_all_images_count_together() -> None:
    random = np.random.default_rng(0)
    truths = [random.integers(0, 19, (40, 60)).astype(np.uint8) for _ in range(3)]
    for truth in truths:
        truth[random.random(truth.shape) < 0.2] = 255
    pairs = [(np.where(random.random(t.shape) < 0.6, t % 19, random.integers(0, 19, t.shape)), t) for t in truths]
    matrix = np.zeros((19, 19), np.int64)
    for prediction, truth in pairs:
        valid = truth != 255
        np.add.at(matrix, (truth[valid], prediction[valid]), 1)
    hits = np.diag(matrix)
    expected = 100 * hits / (matrix.sum(0) + matrix.sum(1) - hits)
    names = tuple(f"c{i}" for i in range(19))
    found = score([(p.astype(np.uint8), t) for p, t in pairs], names)
    assert [found[f"IoU/{name}"] for name in names] == pytest.approx(expected.tolist(), abs=0.006)
    assert found["mIoU"] == pytest.approx(expected.mean(), abs=0.006)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_cityscapes_frame_is_scored_through_its_config(real_data: Path, wrong: bool) -> None:
    """The annotation itself scores 100; with its road called bicycle it loses exactly these two classes."""
    root = real_data / "cityscapes_sample"
    name = "fpnlite-n_mobilenetv4-conv-s_4xb4-480e_cityscapes-2048"
    cfg = apis.load_config(name, {"data_root": str(root)})
    (label,) = root.rglob("*_gtFine_labelTrainIds.png")
    truth = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
    said = np.where(truth == 255, 11, truth).astype(np.uint8)  # what is ignored may be called anything
    if wrong:
        said[truth == 0] = 18
    classes = cfg.classes

    def predict(entries: Sequence[dict]) -> list[Prediction]:
        facts = dict(classes=classes, category_ids=tuple(range(19)))
        return [Prediction.of_labels(entry["img_path"], said, **facts) for entry in entries]

    found = apis.evaluate(cfg, predict, classes).metrics
    present = [classes[i] for i in np.unique(truth[truth != 255])]
    ious = {key.removeprefix("IoU/"): value for key, value in found.items() if key.startswith("IoU/")}
    assert "road" in present and "bicycle" not in present
    if wrong:
        assert set(ious) == {*present, "bicycle"} and ious["road"] == ious["bicycle"] == 0
        assert found["aAcc"] == pytest.approx(100 * (truth[truth != 255] != 0).mean(), abs=0.01)
    else:
        assert set(ious) == set(present) and set(ious.values()) == {100.0}
        assert found["mIoU"] == found["aAcc"] == 100.0
