"""The decoder outside of a file against the one inside, on the same network and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from efftasks import Predictor, apis
from efftasks.export.exporters.onnx import export_onnx, write_metadata
from efftasks.models.det_heads.o2o_head import O2OHead
from efftasks.ops.boxes import decode_distances
from efftasks.runtime.decoders import DECODERS, argmax_labels, top_pairs
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec
from efftasks.structures.spec import DecoderSpec

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def test_the_best_pairs_by_hand():
    scores = np.array([[[0.2, 0.9], [0.5, 0.5], [0.5, 0.1]]], np.float32)
    boxes = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    labels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    outputs: dict[str, np.ndarray] = {
        "boxes": boxes,
        "scores": scores,
        "keypoints": boxes[..., None],
        "segmentation": labels,
    }
    found = top_pairs(outputs, DecoderSpec("top-pairs", 4))
    assert (found["segmentation"] == labels).all()
    assert found["scores"].tolist() == [[np.float32(0.9), 0.5, 0.5, 0.5]]
    assert found["labels"].tolist() == [[1, 0, 1, 0]] and found["labels"].dtype == np.int64  # ties: the first one first
    assert found["boxes"].tolist() == boxes[:, [0, 1, 1, 2]].tolist()
    assert found["keypoints"].tolist() == boxes[:, [0, 1, 1, 2], :, None].tolist()


def test_keypoints_of_two_numbers_get_the_score_of_their_pair():
    scores = np.array([[[0.2, 0.9], [0.75, 0.5]]], np.float32)
    points = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    decoded = top_pairs(
        {"boxes": np.zeros((1, 2, 4), np.float32), "scores": scores, "keypoints": points}, DecoderSpec("top-pairs", 3)
    )["keypoints"]
    assert decoded.shape == (1, 3, 3, 3) and decoded.dtype == np.float32
    assert (decoded[..., :2] == points[:, [0, 1, 1]]).all()
    assert decoded[0, :, :, 2].tolist() == [[np.float32(0.9)] * 3, [0.75] * 3, [0.5] * 3]


@pytest.mark.parametrize("count", [1, 7, 60, 99])
def test_pairs_of_any_number_as_a_stable_sort_of_all_gives_them(count):
    scores = np.random.default_rng(0).integers(0, 9, (3, 20, 3)).astype(np.float32)  # most of them tie
    boxes = np.random.default_rng(1).random((3, 20, 4), dtype=np.float32)
    found = top_pairs({"boxes": boxes, "scores": scores}, DecoderSpec("top-pairs", count))
    for i in range(3):
        order = sorted(range(60), key=lambda pair: (-scores[i].ravel()[pair], pair))[:count]
        assert (found["scores"][i] == scores[i].ravel()[order]).all()
        assert (found["labels"][i] == np.array(order) % 3).all()
        assert (found["boxes"][i] == boxes[i][np.array(order) // 3]).all()


def test_outside_gives_what_inside_gives(detector, outside_detector, same_detections, tmp_path):
    (model, spec), (before, before_spec) = detector, outside_detector
    inside = Predictor(export_onnx(model, spec, tmp_path / "inside.onnx"))
    outside = Predictor(export_onnx(before, before_spec, tmp_path / "outside.onnx"))
    assert outside.session.outputs == inside.session.outputs == {"boxes", "scores", "labels"}
    same_detections(inside, outside)


def test_what_cannot_be_decoded_is_refused(outside_detector, tmp_path):
    before, spec = outside_detector
    path = export_onnx(before, spec, tmp_path / "model.onnx")
    write_metadata(path, replace(spec, decoder=DecoderSpec("top-pairs")))
    with pytest.raises(UserError, match=r"decoder\.max_detections: got null, expected a number for 'top-pairs'"):
        Predictor(path)
    boxes, scores = spec.outputs
    write_metadata(path, replace(spec, outputs=(boxes, replace(scores, dtype="uint8"))))
    with pytest.raises(UserError, match="'scores' is uint8, expected a float type"):
        Predictor(path)


def test_the_dense_head_outside_gives_what_it_gives_inside():
    specs = [FeatureSpec(8, 8), FeatureSpec(8, 16)]
    cfg = {key: value for key, value in apis.load_config(CONFIG).model.head.items() if key not in ("type", "_scope_")}
    with DefaultScope.overwrite_default_scope("efftasks"):
        head = O2OHead(specs, **{**cfg, "num_classes": 3, "max_detections": 40}).eval()
    with torch.no_grad():
        raw = head([torch.randn(2, 8, 128 // spec.stride, 128 // spec.stride) for spec in specs])
        raw = raw._replace(one_to_one=raw.one_to_one._replace(logits=torch.randn(raw.one_to_one.logits.shape)))
        expected = head.decode(raw)
        boxes = decode_distances(raw.points, raw.one_to_one.distances.float() * raw.strides)
        scores = raw.one_to_one.logits.sigmoid()
    found = top_pairs({"boxes": boxes.numpy(), "scores": scores.numpy()}, DecoderSpec("top-pairs", head.max_detections))
    for name, value in found.items():
        np.testing.assert_allclose(value, getattr(expected, name).numpy(), rtol=1e-6)


def test_masks_are_sums_of_prototypes_by_hand():
    outputs: dict[str, np.ndarray] = {
        "boxes": np.zeros((1, 3, 4), np.float32),
        "scores": np.array([[[0.1], [0.9], [0.5]]], np.float32),
        "coefficients": np.array([[[9, 9], [1, -2], [0, 3]]], np.float32),
        "prototypes": np.array([[[[1, 2, 3]], [[4, 5, 6]]]], np.float32),
    }
    decoded = top_pairs(outputs, DecoderSpec("top-pairs", 2))
    assert decoded["masks"].tolist() == [[[[-7, -8, -9]], [[12, 15, 18]]]]  # of candidates 1 and 2


def test_the_best_class_by_hand():
    scores = np.array([[[[1, 5]], [[3, 5]], [[3, 4]]], [[[0, 0]], [[-1, 0]], [[2, 1]]]], np.float32)
    decoded = argmax_labels({"class_scores": scores}, DecoderSpec("argmax"))
    assert decoded["segmentation"].tolist() == [[[1, 0]], [[2, 2]]]  # ties: the first one
    assert decoded["segmentation"].dtype == np.uint8
    assert scores[0, 0].tolist() == [[1, 5]]  # the runtime's memory is left alone


def test_each_decoder_states_what_it_takes_and_makes():
    for decoder in DECODERS.values():
        assert decoder.takes and not decoder.takes & decoder.makes.keys()
        assert decoder.adds(decoder.takes) and decoder.reads(decoder.takes) == decoder.takes
    parts = {"boxes", "scores", "coefficients", "prototypes", "keypoints"}
    assert DECODERS["top-pairs"].adds(parts) == {"labels", "masks"}
    assert DECODERS["top-pairs"].reads(parts) == parts - {"keypoints"}
    assert DECODERS["argmax"].adds({"class_scores"}) == {"segmentation"}
