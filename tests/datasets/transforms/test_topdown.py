import efftasks.compat  # noqa: F401

import cv2
import numpy as np
import pytest

from efftasks.datasets.transforms.topdown import CropBox, MirrorCrop, PackTopDown
from efftasks.imaging.crops import warp_points

SIZE = (96, 72)
MIRROR = (0, 2, 1)


def results(seed: int = 0) -> dict:
    """An image 120 x 90, smooth noise; a box; three keypoints in it, the last without annotation."""
    random = np.random.default_rng(seed)
    image = cv2.resize(random.integers(0, 255, (9, 12, 3), dtype=np.uint8), (120, 90), interpolation=cv2.INTER_CUBIC)
    keypoints = np.array([[40.5, 30.5, 2], [60.5, 44.5, 1], [0, 0, 0]], np.float32)
    return dict(
        img=image,
        img_id=7,
        ann_id=11,
        label=1,
        ori_shape=(90, 120),
        box=(30.0, 20.0, 70.0, 60.0),
        keypoints=keypoints,
        keypoint_mirror=MIRROR,
    )


def test_crop_in_testing_is_the_rule_and_nothing_else():
    found = [CropBox(SIZE)(results()) for _ in range(2)]
    assert np.array_equal(found[0]["img"], found[1]["img"]) and found[0]["img"].shape == (96, 72, 3)
    assert found[0]["img_shape"] == SIZE and found[0]["ori_shape"] == (90, 120)
    # 40 * 1.25 = 50 pixels of width, about (50, 40), become 72.
    wanted = [36 + (40.5 - 50) * 72 / 50, 48 + (30.5 - 40) * 72 / 50, 2]
    np.testing.assert_allclose(found[0]["keypoints"][0], wanted, atol=1e-4)


def test_random_crops_carry_image_and_keypoints_along():
    transform = CropBox(SIZE, shift=0.2, scale=(0.6, 1.4), degrees=60.0, turned=0.7)
    places = set()
    for _ in range(20):
        before = results()
        after = transform({**before})
        back = warp_points(after["keypoints"], after["crop_to_image"])
        np.testing.assert_allclose(back, before["keypoints"], atol=1e-3)
        for (x, y, seen), (u, v, _) in zip(after["keypoints"], before["keypoints"]):
            if seen and 2 < x < 70 and 2 < y < 94:  # the very picture is there, too
                there = cv2.getRectSubPix(after["img"], (1, 1), (float(x) - 0.5, float(y) - 0.5))[0, 0].astype(int)
                assert np.abs(there - before["img"][int(v), int(u)]).max() <= 12
        places.add(tuple(after["keypoints"][0]))
    assert len(places) == 20


def test_mirrored_twice_is_what_it_was():
    once = MirrorCrop(prob=1.0)(CropBox(SIZE, degrees=30.0, turned=1.0)(results()))
    before = {key: np.array(once[key]) for key in ("img", "keypoints", "crop_to_image")}
    twice = MirrorCrop(prob=1.0)(MirrorCrop(prob=1.0)(once))
    for key, value in before.items():
        np.testing.assert_allclose(twice[key], value, atol=1e-4)


def test_mirroring_by_hand():
    plain, mirrored = CropBox(SIZE)(results()), MirrorCrop(prob=1.0)(CropBox(SIZE)(results()))
    assert np.array_equal(mirrored["img"], plain["img"][:, ::-1])
    x, y, seen = plain["keypoints"][1]  # the left one is the right one now
    np.testing.assert_allclose(mirrored["keypoints"][2], [72 - x, y, seen], atol=1e-4)
    back = warp_points(mirrored["keypoints"], mirrored["crop_to_image"])
    np.testing.assert_allclose(back, results()["keypoints"][list(MIRROR)], atol=1e-3)
    assert MirrorCrop(prob=0.0)(CropBox(SIZE)(results()))["keypoints"].tolist() == plain["keypoints"].tolist()


def test_packed_sample():
    packed = PackTopDown()(CropBox(SIZE)(results()))
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (3, 96, 72) and packed["inputs"].is_contiguous()
    assert sample.gt_instances.keypoints.shape == (1, 3, 3) and sample.gt_instances.labels.tolist() == [1]
    assert (sample.img_id, sample.ann_id, sample.label, sample.box) == (7, 11, 1, (30.0, 20.0, 70.0, 60.0))
    assert sample.crop_to_image.shape == (2, 3) and sample.img_shape == SIZE


def test_a_box_and_an_image_are_enough_to_predict():
    info = dict(img=results()["img"], box=(30.0, 20.0, 70.0, 60.0))
    sample = PackTopDown()(CropBox(SIZE)(info))["data_samples"]
    assert sample.label == 0 and len(sample.gt_instances) == 0


@pytest.mark.parametrize(
    "wrong", [dict(size=None), dict(padding=0), dict(scale=(0.0, 1.0)), dict(scale=(2.0, 1.0)), dict(turned=1.5)]
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got"):
        CropBox(**{"size": SIZE, **wrong})
