"""Boxes in, keypoints out, with a network that is known by heart: it answers with the brightest pixel of a crop."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks.export.exporters.onnx import export_onnx, write_metadata
from efftasks.runtime.topdown import TopDownPredictor
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

SIZE = (64, 48)
SPEC = ArtifactSpec(
    task="top-down pose",
    classes=("cat", "dog"),
    category_ids=(3, 7),
    input=InputSpec("images", *SIZE, mean=(0.0,) * 3, std=(255.0,) * 3),
    outputs=(OutputSpec("keypoints", ("N", 2, 3), "float32", ""),),
    keypoints=("red", "blue"),
    skeleton=((0, 1),),
)


class Brightest(nn.Module):
    """The pixel that is reddest, and the one that is bluest; their brightness is the score."""

    def infer(self, images: Tensor) -> tuple[Tensor]:
        flat = images[:, [0, 2]].flatten(2)
        place = flat.argmax(-1)
        x, y = place % SIZE[1] + 0.5, place // SIZE[1] + 0.5
        return (torch.stack([x.float(), y.float(), flat.amax(-1)], dim=-1),)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(Brightest(), SPEC, tmp_path_factory.mktemp("topdown") / "model.onnx")


@pytest.fixture
def image() -> np.ndarray:
    """Two boxes with a red and a blue dot in each."""
    picture = np.zeros((100, 200, 3), np.uint8)
    for x, y, color in ((30, 40, 2), (50, 60, 0), (120, 20, 2), (170, 80, 0)):
        picture[y - 2 : y + 2, x - 2 : x + 2, color] = 255
    return picture


BOXES = [[20, 30, 60, 70], [100, 10, 190, 90]]


def test_keypoints_are_in_pixels_of_the_image(path, image):
    found = TopDownPredictor(path)(image, BOXES, labels=[1, 0])
    wanted = np.array([[[30, 40], [50, 60]], [[120, 20], [170, 80]]])
    assert found.keypoints is not None and found.keypoints.shape == (2, 2, 3)
    # A pixel of the crop is 40 * 1.25 / 48 = 1.04 or 90 * 1.25 / 48 = 2.3 pixels of the image; dots are 4 x 4.
    assert np.abs(found.keypoints[0, :, :2] - wanted[0]).max() < 2.1
    assert np.abs(found.keypoints[1, :, :2] - wanted[1]).max() < 3.2
    np.testing.assert_allclose(found.scores, found.keypoints[..., 2].mean(1))
    np.testing.assert_allclose(found.boxes, BOXES)
    assert found.labels.tolist() == [1, 0] and found.skeleton == ((0, 1),)
    assert found.keypoint_names == ("red", "blue")


def test_colors_are_in_the_order_that_the_file_says(path, image):
    image[..., 2] = 0
    keypoints = TopDownPredictor(path)(image, BOXES[:1]).keypoints
    assert keypoints is not None and keypoints[0, :, 2].tolist() == [0.0, 1.0]  # no red, and blue at its brightest


def test_boxes_go_through_in_parts_of_the_batch(path, image):
    first, second = BOXES
    boxes = [first, first, first, second, second]
    for batch_size in (8, 4, 3, 1):
        keypoints = TopDownPredictor(path, batch_size=batch_size)(image, boxes).keypoints
        assert keypoints is not None
        np.testing.assert_allclose(keypoints[:3], keypoints[:1].repeat(3, 0))
        np.testing.assert_allclose(keypoints[3:], keypoints[4:].repeat(2, 0))
        assert np.abs(keypoints[0, :, :2] - [[30, 40], [50, 60]]).max() < 2.1
        assert np.abs(keypoints[4, :, :2] - [[120, 20], [170, 80]]).max() < 3.2


def test_no_boxes_no_keypoints(path, image):
    found = TopDownPredictor(path)(image, [])
    assert len(found) == 0 and found.keypoints is not None and found.keypoints.shape == (0, 2, 3)


def test_an_image_file_with_a_picture_of_it(path, image, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), image)
    found = TopDownPredictor(path)(tmp_path / "a.png", BOXES)
    assert found.image == str(tmp_path / "a.png")
    assert not np.array_equal(found.draw(), image)
    assert len(found.to_coco(5)[1]["keypoints"]) == 6


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([[0, 0, np.nan, 4]], "finite"),
        ([[5, 5, 5, 9]], r"got \[5.0, 5.0, 5.0, 9.0\], expected xyxy"),
    ],
)
def test_wrong_boxes_are_named(path, image, boxes, said):
    with pytest.raises(UserError, match=said):
        TopDownPredictor(path)(image, boxes)


def test_wrong_files_and_arguments_are_named(path, image, tmp_path):
    other = Path(shutil.copy(path, tmp_path / "other.onnx"))
    write_metadata(other, replace(SPEC, task="pose"))
    with pytest.raises(UserError, match="got a file for pose, expected one for top-down pose"):
        TopDownPredictor(other)
    with pytest.raises(UserError, match="batch_size: got 0"):
        TopDownPredictor(path, batch_size=0)
    with pytest.raises(UserError, match="labels: got 1 for 2 boxes"):
        TopDownPredictor(path)(image, BOXES, labels=[0])
    with pytest.raises(UserError, match="got an array float64"):
        TopDownPredictor(path)(image.astype(np.float64), BOXES)


def test_it_needs_no_torch():
    code = "import sys, efftasks.runtime.topdown; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mmengine", "mmcv"} & set(done.stdout.split())
