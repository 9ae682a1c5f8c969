import efftasks.compat  # noqa: F401

import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.runtime.preprocess import fit_image
from efftasks.structures.spec import InputSpec


def sample(height: int, width: int) -> dict:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dict(
        img=image, img_shape=(height, width), gt_bboxes=HorizontalBoxes([[0.0, 0.0, float(width), float(height)]])
    )


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize("shape", [(64, 96), (301, 203), (203, 301), (17, 500), (96, 64)])
def test_same_pixels_and_scale_as_the_runtime(shape, mode):
    """Also for a portrait image in a landscape frame, where mmcv's own rule turns the frame."""
    results = FitImage(size=(64, 96), mode=mode)(sample(*shape))
    assert results["img"].shape == (64, 96, 3)
    spec = InputSpec("images", 64, 96, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize=mode)
    fitted, place = fit_image(sample(*shape)["img"], spec, (64, 96))
    height, width = fitted.shape[:2]
    np.testing.assert_array_equal(results["img"][:height, :width], fitted)
    assert results["scale_factor"] == pytest.approx((place.scale_x, place.scale_y))
    assert (results["img"][height:] == 114).all() and (results["img"][:, width:] == 114).all()
    np.testing.assert_allclose(results["gt_bboxes"].tensor[0], [0, 0, width, height], atol=1e-3)


def test_wrong_mode_is_named():
    with pytest.raises(ValueError, match="mode: got 'crop', allowed are 'letterbox', 'stretch'"):
        FitImage(size=(64, 96), mode="crop")


def test_a_size_must_come_from_somewhere():
    with pytest.raises(ValueError, match="size: got None, expected"):
        FitImage(size=None)


def annotated(height: int, width: int) -> dict:
    found = sample(height, width)
    masks = np.zeros((2, height, width), np.uint8)
    masks[0, 10:30, 20:60] = 1
    found["gt_masks"] = BitmapMasks(masks, height, width)
    found["gt_seg_map"] = masks[0] * 3
    found["gt_keypoints"] = np.array([[[20, 10, 2], [60, 30, 1]], [[0, 0, 0], [0, 0, 0]]], np.float32)
    return found


def test_masks_keypoints_and_label_map_go_along() -> None:
    found = FitImage(size=(64, 96))(annotated(60, 120))  # to 48 x 96, and 16 rows below
    assert found["scale_factor"] == (0.8, 0.8)
    assert found["gt_keypoints"].tolist() == [[[16, 8, 2], [48, 24, 1]], [[0, 0, 0], [0, 0, 0]]]
    expected = np.zeros((64, 96), np.uint8)
    expected[8:24, 16:48] = 1
    np.testing.assert_array_equal(found["gt_masks"].masks, [expected, 0 * expected])
    assert (found["gt_seg_map"][48:] == 255).all()
    np.testing.assert_array_equal(found["gt_seg_map"][:48], 3 * expected[:48])


def test_stretching_scales_each_side_by_itself() -> None:
    found = FitImage(size=(120, 60), mode="stretch")(annotated(60, 120))
    assert found["scale_factor"] == (0.5, 2.0)
    assert found["gt_keypoints"][0].tolist() == [[10, 20, 2], [30, 60, 1]]
    assert found["gt_masks"].masks[0].sum() == found["gt_masks"].masks[0, 20:60, 10:30].sum() == 800


def test_masks_lie_where_the_labels_do() -> None:
    """Both take for each pixel what lies at its center, whatever the factor."""
    shapes = np.zeros((53, 71), np.uint8)
    shapes[7:31, 11:50] = 1
    shapes[20:25, 20:30] = 0
    for side in (17, 40, 90, 133):
        results = sample(53, 71)
        results["gt_masks"] = BitmapMasks(shapes[None], 53, 71)
        results["gt_seg_map"] = shapes.copy()
        found = FitImage(size=(side, side), mode="stretch")(results)
        differ = found["gt_masks"].masks[0] != found["gt_seg_map"]
        assert differ.mean() < 0.005, "but for centers that lie on an edge"
