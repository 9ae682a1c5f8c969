import numpy as np
import pytest
import torch
from torch.testing import assert_close

from efftasks.ops.keypoints import object_keypoint_similarity


def test_similarity_by_hand():
    # One keypoint 10 px off, the other exact; area 100^2 px, sigma 0.05: exponent 100 / (2 * 10000 * 0.01) = 0.5.
    points = torch.tensor([[10.0, 0.0], [50.0, 50.0]])
    wanted = torch.tensor([[0.0, 0.0, 2.0], [50.0, 50.0, 1.0]])
    found = object_keypoint_similarity(points, wanted, torch.tensor([0.05, 0.05]), torch.tensor(1e4))
    assert_close(found, torch.tensor((np.exp(-0.5) + 1) / 2, dtype=torch.float32))


def test_what_is_not_annotated_does_not_count():
    points = torch.tensor([[10.0, 0.0], [900.0, 900.0]])
    wanted = torch.tensor([[10.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    sigmas = torch.tensor([0.05, 0.05])
    assert object_keypoint_similarity(points, wanted, sigmas, torch.tensor(100.0)) == 1
    nothing = wanted * torch.tensor([1.0, 1.0, 0.0])
    assert object_keypoint_similarity(points, nothing, sigmas, torch.tensor(100.0)) == 0


def test_against_pycocotools():
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    random = np.random.default_rng(0)
    evaluation = cocoeval.COCOeval(iouType="keypoints")
    evaluation.params.kpt_oks_sigmas = random.uniform(0.02, 0.1, 5)
    truth = random.uniform(0, 100, (5, 3))
    truth[:, 2] = [0, 1, 2, 2, 1]
    found = truth.copy()
    found[:, :2] += random.normal(0, 4, (5, 2))
    # The evaluator adds the smallest double to an area in its own way; 2500 px are much more.
    row = dict(keypoints=truth.ravel().tolist(), bbox=[0, 0, 100, 100], area=2500.0, num_keypoints=4, ignore=0)
    evaluation._gts = {(1, 1): [dict(row, id=1)]}
    evaluation._dts = {(1, 1): [dict(row, keypoints=found.ravel().tolist(), id=1, score=1.0)]}
    expected = evaluation.computeOks(1, 1)[0, 0]
    sigmas = torch.from_numpy(evaluation.params.kpt_oks_sigmas)
    ours = object_keypoint_similarity(
        torch.from_numpy(found[:, :2]), torch.from_numpy(truth), sigmas, torch.tensor(2500.0, dtype=torch.float64)
    )
    assert_close(ours, torch.tensor(expected), rtol=1e-9, atol=1e-9)
