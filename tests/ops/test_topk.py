import torch
from torch.testing import assert_close

from efftasks.ops.topk import top_pairs


def test_equals_a_search_over_all_pairs():
    torch.manual_seed(0)
    logits = torch.randn(3, 50, 7)
    best, labels, points = top_pairs(logits, 20)
    expected, pair = logits.flatten(1).topk(20, dim=1)
    assert_close(best, expected)
    assert_close(labels, pair % 7)
    assert_close(points, pair // 7)


def test_one_point_may_answer_for_two_classes():
    logits = torch.full((1, 4, 3), -5.0)
    logits[0, 2, 0], logits[0, 2, 1] = 3.0, 2.0
    best, labels, points = top_pairs(logits, 2)
    assert best.tolist() == [[3.0, 2.0]]
    assert labels.tolist() == [[0, 1]]
    assert points.tolist() == [[2, 2]]


def test_more_pairs_than_points():
    # A set of few queries gives its best pairs of query and class, so that one query may answer twice.
    logits = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))
    best, labels, points = top_pairs(logits, 12)
    assert best.shape == (2, 12)
    for b in range(2):
        assert torch.equal(best[b], logits[b].flatten().sort(descending=True).values[:12])
        assert torch.equal(logits[b][points[b], labels[b]], best[b])
