import efftasks.compat  # noqa: F401

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from efftasks.models.targets import pad_targets

CPU = torch.device("cpu")


def instances(boxes, labels, masks=None, keypoints=None, shares=None) -> InstanceData:
    data = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    if masks is not None:
        data.masks = torch.tensor(masks, dtype=torch.uint8).reshape(-1, 2, 2)
    if keypoints is not None:
        data.keypoints = torch.tensor(keypoints, dtype=torch.float32).reshape(-1, 1, 3)
        data.area_shares = torch.tensor(shares, dtype=torch.float32)
    return data


def sample(objects: InstanceData, crowds: InstanceData | None = None) -> DetDataSample:
    data = DetDataSample()
    data.gt_instances = objects
    if crowds is not None:
        data.ignored_instances = crowds
    return data


def test_objects_come_before_crowds_and_rows_are_padded():
    first = sample(instances([[0, 0, 4, 4], [2, 2, 6, 8]], [3, 1]), instances([[1, 1, 8, 8]], [0]))
    padded = pad_targets([first, sample(instances([[4, 4, 8, 8]], [2]))], CPU)
    assert padded.labels.tolist() == [[3, 1, 0], [2, 0, 0]]
    assert padded.boxes[0].tolist() == [[0, 0, 4, 4], [2, 2, 6, 8], [1, 1, 8, 8]]
    assert padded.valid.tolist() == [[True, True, True], [True, False, False]]
    assert padded.ignored.tolist() == [[False, False, True], [False, False, False]]
    assert padded.masks is None and padded.keypoints is None


def test_a_batch_without_objects():
    padded = pad_targets([sample(instances([], [], masks=[])), sample(instances([], [], masks=[]))], CPU)
    assert padded.labels.shape == (2, 0) and padded.boxes.shape == (2, 0, 4)
    assert padded.masks is not None and padded.masks.shape == (2, 0, 2, 2)


def test_masks_of_crowds_come_along():
    own = instances([[0, 0, 6, 4]], [0], masks=[[[255, 32], [0, 0]]])
    crowd = instances([[4, 4, 8, 8]], [0], masks=[[[0, 0], [0, 16]]])
    padded = pad_targets([sample(own, crowd), sample(instances([], [], masks=[]))], CPU).masks
    assert padded is not None and padded.dtype == torch.uint8
    assert padded.tolist() == [[[[255, 32], [0, 0]], [[0, 0], [0, 16]]], [[[0, 0], [0, 0]]] * 2]


def test_areas_follow_the_boxes():
    points = [[1, 2, 2], [0, 0, 0]]
    padded = pad_targets([sample(instances([[0, 0, 4, 4], [0, 0, 2, 8]], [0, 0], None, points, [0.5, 1.0]))], CPU)
    assert padded.areas is not None and padded.areas.tolist() == [[8, 16]]
    assert padded.keypoints is not None and padded.keypoints[0, :, 0].tolist() == points
