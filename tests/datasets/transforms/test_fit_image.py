import efftasks.compat  # noqa: F401

import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes

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
