import math

import numpy as np
import pytest
import torch

from efftasks.codecs.simcc import SimCC

SIZE = (256, 192)  # height, width


def random_keypoints(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.concatenate([random.random((count, 2)) * SIZE[::-1], np.full((count, 1), 2)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("split_ratio", "normalize"), [(2.0, False), (2.0, True), (1.0, False), (3.0, False)])
def test_round_trip_within_half_a_bin(split_ratio, normalize):
    codec = SimCC(SIZE, split_ratio, normalize=normalize)
    keypoints = random_keypoints(200)
    x, y, weights = codec.encode(keypoints)
    assert x.shape == (200, 192 * split_ratio) and y.shape == (200, 256 * split_ratio) and (weights == 1).all()
    found = codec.decode(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0].numpy()
    assert np.abs(found[:, :2] - keypoints[:, :2]).max() <= 0.5 / split_ratio + 1e-4
    # A target is as sure as can be, between two bins a little less; where the crop cuts a Gaussian off it is surer.
    assert (found[:, 2] > 0.89).all() and (found[:, 2] <= 1).all()


def test_a_target_against_the_formula_of_mmpose():
    """There the keypoint is rounded to bin ``mu`` and the bins are 0, 1, ...; bin ``mu`` is here mu + 0.5 bins in."""
    height, width = SIZE
    sigma, ratio = (4.9, 5.66), 2.0
    bins_x, bins_y = 71, 300
    x = np.exp(-((np.arange(width * 2) - bins_x) ** 2) / (2 * sigma[0] ** 2))
    y = np.exp(-((np.arange(height * 2) - bins_y) ** 2) / (2 * sigma[1] ** 2))
    keypoints = np.array([[(bins_x + 0.5) / ratio, (bins_y + 0.5) / ratio, 1.0]])
    found = SimCC(SIZE, ratio, sigma).encode(keypoints)
    np.testing.assert_allclose(found.x[0], x, atol=1e-6)
    np.testing.assert_allclose(found.y[0], y, atol=1e-6)
    found = SimCC(SIZE, ratio, sigma, normalize=True).encode(keypoints)
    np.testing.assert_allclose(found.x[0], x / (4.9 * math.sqrt(2 * math.pi)), atol=1e-6)


def test_the_width_of_the_gaussian_is_that_of_rtmpose():
    np.testing.assert_allclose(SimCC(SIZE).sigma, (4.9, 5.66), atol=5e-3)  # what its configs say at 256 x 192
    np.testing.assert_allclose(SimCC((384, 288)).sigma, (6.0, 6.93), atol=5e-3)


def test_out_of_the_crop_and_not_annotated_have_no_weight():
    keypoints = np.array(
        [[-0.1, 5, 2], [192, 5, 2], [5, 256, 2], [5, -1, 2], [5, 5, 0], [0, 0, 1], [191.9, 255.9, 2]], np.float32
    )
    x, y, weights = SimCC(SIZE).encode(np.stack([keypoints, keypoints]))  # leading axes are kept
    assert x.shape == (2, 7, 384) and weights[1].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert not x[0, :5].any() and not y[0, :5].any() and x[0, 5:].max() > 0.9


def test_score_is_the_peak_of_the_softmax_of_the_less_sure_direction():
    codec = SimCC((32, 16))
    random = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 3, 32, generator=random), torch.rand(2, 3, 64, generator=random)
    found = codec.decode(x, y)
    for b in range(2):
        for p in range(3):
            scores = []
            for k, logits in enumerate((x[b, p].tolist(), y[b, p].tolist())):
                best = max(range(len(logits)), key=logits.__getitem__)
                assert found[b, p, k].item() == pytest.approx((best + 0.5) / 2)
                share = math.exp(10 * logits[best]) / sum(math.exp(10 * value) for value in logits)
                bins, sigma = len(logits), math.sqrt(len(logits)) / 4
                target = [10 * math.exp(-((i - bins // 2) ** 2) / (2 * sigma**2)) for i in range(bins)]
                scores.append(share / (math.exp(10) / sum(map(math.exp, target))))
            assert found[b, p, 2].item() == pytest.approx(min(1.0, *scores), rel=1e-4)


def test_knowing_nothing_scores_little():
    codec = SimCC(SIZE)
    assert codec.decode(torch.zeros(1, 1, 384), torch.zeros(1, 1, 512))[0, 0, 2] < 0.02


@pytest.mark.parametrize("wrong", [dict(input_size=(0, 4)), dict(sigma=(0.0, 1.0))])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimCC(**{"input_size": SIZE, **wrong})
