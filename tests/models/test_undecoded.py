"""Networks up to where a runtime's decoder takes over: with the decoder in numpy they give what ``infer`` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from efftasks.models.det_heads.o2o_head import O2OHead
from efftasks.models.insseg_heads.sparse_inst_head import SparseInstRaw
from efftasks.models.segmentors import Segmentor
from efftasks.runtime.decoders import DECODERS, best_instances
from efftasks.structures.errors import UserError
from efftasks.structures.protocols import GivesCandidates, SelectsInside
from efftasks.structures.spec import DecoderSpec

DENSE = ("o2o", "o2o_masks", "o2o_keypoints", "o2o_all")
SEMANTIC = ("fpnlite", "seaformer_s", "pidnet_s", "segformer_b0")
QUERIES = ("dfine", "rtdetrv2", "deimv2", "deimv2_lite", "dfine_masks", "detrpose")


def spread(family: str, families: Any, **changes: Any) -> Any:
    """A fresh model whose scores do not tie."""
    model = families.build_family(family, **changes)
    if isinstance(getattr(model, "head", None), O2OHead):
        for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
            torch.nn.init.normal_(scores[-1].weight, 0.0, 0.5)
            torch.nn.init.normal_(sides[-1].weight, 0.0, 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # one batch gives the statistics
        with torch.no_grad():
            model.train()(families.images(family))
    return model.eval()


def run_both(model: Any, images: torch.Tensor) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the model gives, and what its undecoded form and the decoder give; by name."""
    size = (images.shape[2], images.shape[3])
    form = model.undecoded(*size)
    with torch.no_grad():
        expected = [value for value in model.infer(images) if value is not None]
        tensors = model.infer_undecoded(images)
    outputs = {}
    for output, tensor in zip(form.outputs, tensors, strict=True):
        assert tuple(tensor.shape) == (len(images), *output.shape[1:]) and str(tensor.dtype) == f"torch.{output.dtype}"
        outputs[output.name] = tensor.numpy()
    if form.decoder is not None:
        outputs = DECODERS[form.decoder.name].decode(outputs, form.decoder)
    names = [output.name for output in model.outputs(*size)]
    return {name: value.numpy() for name, value in zip(names, expected, strict=True)}, outputs


@pytest.mark.parametrize("family", DENSE)
def test_dense_heads(family, families):
    model = spread(family, families)
    expected, decoded = run_both(model, families.images(family))
    assert expected.keys() <= decoded.keys()
    scores = expected["scores"]
    gaps = np.abs(np.diff(scores, prepend=2, append=-1)) > 1e-6  # near ties may change places
    clear = gaps[:, :-1] & gaps[:, 1:]
    assert clear.mean() > 0.5
    for name, value in expected.items():
        assert decoded[name].shape == value.shape and decoded[name].dtype == value.dtype
        rows = clear if value.shape[:2] == clear.shape else np.ones(len(value), bool)
        if name == "segmentation":
            assert (decoded[name] == value).mean() > 0.999
        else:
            np.testing.assert_allclose(decoded[name][rows], value[rows], rtol=1e-4, atol=1e-4, err_msg=name)


def test_instances_without_boxes(families):
    model = families.build_family("sparseinst").eval()
    instances = model.head.instances
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(families.images("sparseinst"))
    for layer in (instances.classes, instances.kernels):
        torch.nn.init.normal_(layer.weight, 0.0, 0.3)
    expected, decoded = run_both(model.eval(), families.images("sparseinst"))
    scores = expected["scores"]
    gaps = np.abs(np.diff(scores, prepend=2, append=-1)) > 1e-6
    clear = gaps[:, :-1] & gaps[:, 1:]
    assert clear.mean() > 0.5 and (scores > 0).mean() > 0.3
    for name, value in expected.items():
        assert decoded[name].shape == value.shape and decoded[name].dtype == value.dtype
        np.testing.assert_allclose(decoded[name][clear], value[clear], rtol=1e-4, atol=1e-4, err_msg=name)


def test_instances_whose_masks_are_empty_or_extreme(families):
    head = families.build_family("sparseinst").head
    masks = torch.full((1, head.num_instances, 6, 5), -200.0)
    masks[0, 1, 2:4, 1] = 300.0
    raw = SparseInstRaw(
        torch.linspace(-80, 80, head.num_instances * 3).reshape(1, -1, 3), torch.zeros(1, 100, 1), masks
    )
    expected = head.decode(raw)
    names = [output.name for output in head.candidate_outputs(24, 20)]
    decoded = best_instances(
        {name: value.numpy() for name, value in zip(names, head.candidates(raw))}, DecoderSpec("instances", 100)
    )
    assert (decoded["scores"][0, 1:] == 0).all() and decoded["scores"][0, 0] > 0
    for name in ("boxes", "scores"):
        np.testing.assert_allclose(decoded[name], getattr(expected, name).numpy(), rtol=1e-5, atol=1e-12, err_msg=name)


def test_heat_maps_over_bins(families):
    model = families.build_family("simcc").eval()
    for layer in (model.head.classify_x, model.head.classify_y):
        torch.nn.init.normal_(layer.weight, 0.0, 0.1)
    expected, decoded = run_both(model, families.images("simcc"))
    np.testing.assert_allclose(decoded["keypoints"], expected["keypoints"], rtol=1e-6)
    assert len(np.unique(decoded["keypoints"][..., 0])) > 2


@pytest.mark.parametrize("output", ["labels", "coarse-labels", "logits"])
@pytest.mark.parametrize("family", SEMANTIC)
def test_segmenters(family, output, families):
    model: Segmentor = spread(family, families, test_cfg=dict(output=output))
    expected, decoded = run_both(model, families.images(family))
    (name, values) = next(iter(expected.items()))
    assert len(np.unique(values)) > 1
    assert decoded[name].dtype == values.dtype
    np.testing.assert_array_equal(decoded[name], values)


@pytest.mark.parametrize("family", QUERIES)
def test_query_heads_select_within_their_networks_but_end_early(family, families):
    model = families.build_family(family).eval()
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if parameter.dim() > 1 and ("head" in name or "kernels" in name or "sampling_offsets" in name):
                parameter.normal_(std=0.1)
        if family == "dfine_masks":
            model.head.masks.bias.fill_(0.7)
    assert isinstance(model.head, SelectsInside) and isinstance(model.head, GivesCandidates)
    assert model.undecoded(96, 96).selects == "they select its queries before its decoder runs"
    expected, decoded = run_both(model, families.images(family))
    assert expected.keys() <= decoded.keys()
    gaps = np.abs(np.diff(expected["scores"], prepend=2, append=-1)) > 1e-7
    clear = gaps[:, :-1] & gaps[:, 1:]  # logits that differ may have equal scores
    assert clear.mean() > 0.5
    for name, value in expected.items():
        assert decoded[name].shape == value.shape and decoded[name].dtype == value.dtype
        np.testing.assert_allclose(decoded[name][clear], value[clear], rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_head_without_candidates_is_refused(families):
    model = families.build_family("deimv2_lite")
    model.head = torch.nn.Identity()
    with pytest.raises(UserError, match=r"the decoding of Identity cannot be left out of the file \(it does not give"):
        model.undecoded(96, 96)
