"""What a model is given: tensors, objects and crowd regions apart."""

from __future__ import annotations

import pickle

import efftasks.compat  # noqa: F401

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from efftasks.datasets.transforms.pack_objects import PackObjects


def results() -> dict:
    masks = np.zeros((3, 8, 12), np.uint8)
    masks[0, :4, :6], masks[1, 7, 11], masks[2] = 1, 1, 1
    return dict(
        img=np.arange(8 * 12 * 3, dtype=np.int64).astype(np.uint8).reshape(8, 12, 3),
        img_id=5,
        ori_shape=(4, 6),
        something=1,
        gt_bboxes=HorizontalBoxes([[0.0, 0, 1, 1], [1, 0, 2, 2], [0, 0, 3, 2]]),
        gt_bboxes_labels=np.array([3, 4, 5]),
        gt_ignore_flags=np.array([False, True, False]),
        gt_masks=BitmapMasks(masks, 8, 12),
        gt_keypoints=np.arange(18, dtype=np.float32).reshape(3, 2, 3),
        gt_area_shares=np.array([0.5, 1, 0.25], np.float32),
        gt_seg_map=np.array([[0, 1, 255], [2, 0, 1]], np.uint8),
    )


def test_objects_and_crowds_apart() -> None:
    packed = PackObjects()(results())
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (3, 8, 12) and packed["inputs"][1, 0, :3].tolist() == [1, 4, 7]
    assert sample.metainfo == dict(img_id=5, ori_shape=(4, 6))
    objects, crowds = sample.gt_instances, sample.ignored_instances
    assert objects.labels.tolist() == [3, 5] and crowds.labels.tolist() == [4]
    assert objects.bboxes.tensor.tolist() == [[0, 0, 1, 1], [0, 0, 3, 2]]
    assert isinstance(objects.keypoints, torch.Tensor) and objects.keypoints[1, 0].tolist() == [12, 13, 14]
    assert crowds.keypoints.shape == (1, 2, 3) and crowds.area_shares.tolist() == [1]
    assert objects.area_shares.tolist() == [0.5, 0.25]
    # Cells of 4 x 4 pixels: one and a half, all, and a single pixel.
    assert objects.masks.tolist() == [[[255, 128, 0], [0, 0, 0]], [[255] * 3] * 2]
    assert crowds.masks.tolist() == [[[0, 0, 0], [0, 0, 16]]]
    assert sample.gt_sem_seg.data.tolist() == [[[0, 1, 255], [2, 0, 1]]]


def test_as_mmdet_packs_what_mmdet_knows() -> None:
    keys = ("img_id", "ori_shape")
    own, theirs = PackObjects(keys)(results()), PackDetInputs(keys)(results())
    torch.testing.assert_close(own["inputs"], theirs["inputs"])
    for name in ("gt_instances", "ignored_instances"):
        a, b = own["data_samples"].get(name), theirs["data_samples"].get(name)
        torch.testing.assert_close(a.bboxes.tensor, b.bboxes.tensor)
        torch.testing.assert_close(a.labels, b.labels)
        whole = torch.from_numpy(b.masks.masks).float()[:, None]
        shares = torch.nn.functional.avg_pool2d(whole, 4)[:, 0] if len(b) else torch.zeros(0, 2, 3)
        torch.testing.assert_close(a.masks, (shares * 255).round().to(torch.uint8), atol=1, rtol=0)
    labels = theirs["data_samples"].gt_sem_seg.sem_seg
    torch.testing.assert_close(own["data_samples"].gt_sem_seg.data, labels.long())


def test_an_image_alone() -> None:
    sample = PackObjects()(dict(img=np.zeros((2, 3, 3), np.uint8)))["data_samples"]
    assert len(sample.gt_instances) == 0 and "gt_sem_seg" not in sample


def test_samples_go_from_process_to_process() -> None:
    sample = pickle.loads(pickle.dumps(PackObjects()(results())["data_samples"]))
    assert sample.gt_instances.masks[:, 0, 1].tolist() == [128, 255]
