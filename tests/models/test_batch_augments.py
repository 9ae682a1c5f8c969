"""Augmentations of whole batches: on images whose result can be computed by hand."""

from __future__ import annotations

import efftasks.compat  # noqa: F401

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from efftasks.models.batch_augments import CopyBlend, DenseBatchAugment, MixUp, MultiScale


def sample(*boxes: tuple[float, float, float, float]) -> DetDataSample:
    made = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
    made.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.arange(len(boxes))
    )
    return made


def batch() -> tuple[torch.Tensor, list[DetDataSample]]:
    images = torch.zeros(3, 3, 64, 64)
    images[1], images[2] = 1.0, 2.0
    return images, [sample((4, 4, 24, 24)), sample((10, 10, 40, 30), (1, 1, 20, 20)), sample()]


def test_mixup_of_plain_pictures() -> None:
    images, samples = batch()
    torch.manual_seed(0)
    mixed, united = MixUp(prob=1.0, ratio_range=(0.5, 0.5))(images, samples)
    assert [float(picture.mean()) for picture in mixed] == pytest.approx([1.0, 0.5, 1.5])
    assert [len(each.gt_instances) for each in united] == [1, 3, 2]
    assert united[0].metainfo["img_shape"] == (64, 64)
    assert torch.equal(images[1], torch.ones(3, 64, 64)), "the batch that was given stays as it is"


def test_copies_are_blended_where_their_boxes_are() -> None:
    images, samples = batch()
    images[:] = 0.0
    images[1, :, 10:30, 10:40] = 1.0  # one bright object
    samples = [sample(), sample((10, 10, 40, 30)), sample()]
    torch.manual_seed(0)
    blend = CopyBlend(prob=1.0, expand_ratios=(0.0, 0.0), ratio_range=(0.5, 0.5), num_objects=2)
    blended, filled = blend(images, samples)
    assert [len(each.gt_instances) for each in filled] == [1, 2, 1]
    left, top, right, bottom = (int(v) for v in filled[0].gt_instances.bboxes[0])
    assert (right - left, bottom - top) == (30, 20)
    assert float(blended[0, :, top:bottom, left:right].min()) == 0.5
    outside = blended[0].clone()
    outside[:, top:bottom, left:right] = 0
    assert float(outside.abs().max()) == 0
    assert filled[0].gt_instances.labels.tolist() == [0]


def test_small_objects_are_not_copied() -> None:
    images, samples = batch()
    blended, same = CopyBlend(prob=1.0, min_area=10_000)(images, samples)
    assert torch.equal(blended, images) and same is samples


def test_nothing_in_the_batch() -> None:
    images = torch.rand(1, 3, 64, 64)
    for augment in (MixUp(prob=1.0), CopyBlend(prob=1.0), MultiScale(sizes=[32])):
        _, samples = augment(images, [sample()])
        assert len(samples[0].gt_instances) == 0


def test_mixup_goes_before_copyblend_and_windows_hold() -> None:
    images, samples = batch()
    dense = DenseBatchAugment(mixup=dict(prob=1.0, window=(0.2, 0.5)), copyblend=dict(prob=1.0, window=(0.0, 0.8)))
    counts = {}
    for progress in (0.0, 0.2, 0.5, 0.9):
        dense.set_progress(progress)
        _, out = dense(images, samples)
        counts[progress] = [len(each.gt_instances) for each in out]
    assert counts[0.2] == [1, 3, 2]  # mixed
    assert counts[0.0] == counts[0.5] == [4, 5, 3]  # three copies each
    assert counts[0.9] == [1, 2, 0]


def test_multi_scale_moves_boxes_along() -> None:
    images, samples = batch()
    resized, scaled = MultiScale(sizes=[96])(images, samples)
    assert resized.shape == (3, 3, 96, 96)
    torch.testing.assert_close(scaled[0].gt_instances.bboxes, torch.tensor([[6.0, 6.0, 36.0, 36.0]]))
    assert scaled[0].batch_input_shape == (96, 96)


def annotated(left: int) -> DetDataSample:
    """An object of 16 x 16 pixels with its cells, its corners as keypoints and its pixels, and a crowd region."""
    made = sample((left, 8, left + 16, 24))
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[:, 2:6, left // 4 : left // 4 + 4] = 255
    made.gt_instances.masks = masks
    made.gt_instances.keypoints = torch.tensor([[[left, 8.0, 2], [left + 16, 24.0, 1]]])
    made.ignored_instances = InstanceData(bboxes=torch.tensor([[40.0, 40, 60, 60]]), labels=torch.tensor([0]))
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, 8:24, left : left + 16] = 1
    made.gt_sem_seg = PixelData(data=labels)
    return made


def test_multi_scale_moves_all_that_is_annotated() -> None:
    _, (scaled,) = MultiScale(sizes=[128])(torch.zeros(1, 3, 64, 64), [annotated(16)])
    assert scaled.gt_instances.bboxes.tolist() == [[32, 16, 64, 48]]
    assert scaled.gt_instances.keypoints.tolist() == [[[32, 16, 2], [64, 48, 1]]]
    assert scaled.ignored_instances.bboxes.tolist() == [[80, 80, 120, 120]]
    masks, labels = scaled.gt_instances.masks, scaled.gt_sem_seg.data
    assert masks.shape == (1, 32, 32) and masks.dtype == torch.uint8
    ys, xs = torch.nonzero(masks[0] > 127, as_tuple=True)
    assert (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) == (4, 12, 8, 16)
    expected = torch.zeros(1, 128, 128, dtype=torch.long)
    expected[:, 16:48, 32:64] = 1
    assert torch.equal(labels, expected)


def test_mixup_unites_all_that_is_annotated() -> None:
    _, (first, second) = MixUp(prob=1.0)(torch.zeros(2, 3, 64, 64), [annotated(16), annotated(24)])
    assert first.gt_instances.masks.shape == (2, 16, 16) and first.gt_instances.keypoints.shape == (2, 2, 3)
    assert first.gt_instances.masks[1, 2, 9] == 255 and second.gt_instances.masks[1, 2, 4] == 255
    assert first.ignored_instances.bboxes.shape == (2, 4)
    row = first.gt_sem_seg.data[0, 10]
    assert row[24:32].tolist() == [1] * 8 and (row[16:24] == 255).all() and (row[32:40] == 255).all()
    assert row[40:].tolist() == [0] * 24


def test_mixup_with_an_image_without_a_label_map_leaves_nothing_to_learn() -> None:
    plain = annotated(24)
    del plain.gt_sem_seg
    _, (first, second) = MixUp(prob=1.0)(torch.zeros(2, 3, 64, 64), [annotated(16), plain])
    assert (first.gt_sem_seg.data == 255).all() and "gt_sem_seg" not in second


def test_objects_that_are_more_than_boxes_are_not_copied() -> None:
    with pytest.raises(ValueError, match="CopyBlend: got objects with masks, expected boxes alone"):
        CopyBlend(prob=1.0)(torch.zeros(1, 3, 64, 64), [annotated(16)])
    mapped = annotated(16)
    mapped.gt_instances = InstanceData(bboxes=mapped.gt_instances.bboxes, labels=mapped.gt_instances.labels)
    with pytest.raises(ValueError, match="CopyBlend: got label maps, expected boxes alone"):
        CopyBlend(prob=1.0)(torch.zeros(1, 3, 64, 64), [mapped])


def test_multi_scale_of_an_oblong_batch_has_two_scales() -> None:
    """64 x 128 pixels (height x width) become 96 x 96: three quarters as wide, half as high again."""
    _, samples = batch()
    samples[0].gt_instances.bboxes = torch.tensor([[4.0, 8.0, 100.0, 60.0]])
    resized, scaled = MultiScale(sizes=[96])(torch.rand(3, 3, 64, 128), samples)
    assert resized.shape == (3, 3, 96, 96)
    torch.testing.assert_close(scaled[0].gt_instances.bboxes, torch.tensor([[3.0, 12.0, 75.0, 90.0]]))


def test_sizes_as_published() -> None:
    # 640 px in the middle, three times, and 480 to 800 about it.
    expected = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]
    assert sorted(MultiScale(base=640, base_repeat=3).sizes) == expected


def test_seeds_hold() -> None:
    images, samples = batch()
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(CopyBlend(prob=1.0)(images, samples)[0])
    assert torch.equal(*results)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"sizes: got \(100,\)"):
        MultiScale(sizes=[100])
    with pytest.raises(ValueError, match=r"window: got \(0.5, 0.1\)"):
        MixUp(window=(0.5, 0.1))
