"""The segmentor: what it gives its heads, what it does with padding and windows, what it drops when it ships."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from efftasks.compression.folding import inference_model
from efftasks.models.guides.base import Guide, Student
from efftasks.models.segmentors import Segmentor
from efftasks.registry import MODELS
from efftasks.structures.features import Stages
from efftasks.structures.protocols import Staged

BACKBONE = dict(type="MobileNetV4", variant="conv-s", width=0.25, depth=0.3, out_strides=(8, 16, 32))
CE = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
HEAD = dict(type="FPNLiteHead", channels=16, num_classes=4, loss_decode=CE)
AUXILIARY = dict(
    type="mmseg.FCNHead",
    in_index=1,
    channels=8,
    num_convs=1,
    concat_input=False,
    num_classes=4,
    norm_cfg=dict(type="BN"),
    loss_decode=dict(CE, loss_weight=0.4),
)
PREPROCESSOR = dict(type="SegPreprocessor")


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("efftasks"):
        yield


def make(**changes: Any) -> Segmentor:
    torch.manual_seed(0)
    parts = dict(backbone=BACKBONE, decode_head={**HEAD, "in_index": (0, 1, 2)}, data_preprocessor=PREPROCESSOR)
    model: Segmentor = MODELS.build({"type": "Segmentor", **parts, **changes})
    return model


def samples(count: int, size: tuple[int, int]) -> list[SegDataSample]:
    random = torch.Generator().manual_seed(0)
    labels = [torch.randint(0, 4, (1, *size), generator=random) for _ in range(count)]
    return [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in labels]


class CountingGuide(Guide):
    """Notes what a guide is given."""

    def __init__(self, student: Student) -> None:
        super().__init__(nn.Identity())
        self.scale = nn.Parameter(torch.ones(()))
        self.given: tuple[Any, ...] = student[:2]

    def forward(self, images: Tensor, stages: Stages) -> dict[str, Tensor]:
        maps, logits = stages.features, stages.raw
        self.given = (*self.given, images.shape, len(maps), logits.shape)
        return dict(loss_guide=self.scale * logits.square().mean())


def test_heads_get_the_channels_of_the_maps_they_choose() -> None:
    model = make(auxiliary_head=[AUXILIARY, dict(AUXILIARY, in_index=-1)])
    channels = [spec.channels for spec in model.backbone.specs]
    assert list(model.decode_head.in_channels) == channels
    assert [head.in_channels for head in model.auxiliary_head] == [channels[1], channels[2]]
    assert model.divisor == 32


def test_losses_of_all_heads_and_the_guide_train_everything() -> None:
    model = make(auxiliary_head=AUXILIARY, guide=dict(type=CountingGuide)).train()
    losses = model(torch.rand(2, 3, 64, 96), samples(2, (64, 96)), mode="loss")
    assert set(losses) == {
        *("decode.loss_ce", "decode.acc_seg", "aux_0.loss_ce", "aux_0.acc_seg"),
        "guide.loss_guide",
    }
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert model.guide.given[0] == model.backbone.specs
    assert model.guide.given[1:] == (4, (2, 3, 64, 96), 3, (2, 4, 8, 12))


def test_the_guide_leaves_the_other_losses_alone() -> None:
    losses = []
    for guide in (None, dict(type=CountingGuide)):
        model = make(auxiliary_head=AUXILIARY, guide=guide).train()
        torch.manual_seed(1)  # dropout
        losses.append(model(torch.rand(2, 3, 64, 96), samples(2, (64, 96)), mode="loss"))
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


def test_fused_it_is_the_same_without_what_only_training_has() -> None:
    model = make(auxiliary_head=AUXILIARY, guide=dict(type=CountingGuide)).eval().double()
    fused: Any = inference_model(model)
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fused.raw(x), model.raw(x), atol=1e-10, rtol=1e-9)
    assert fused.guide is None and fused.auxiliary_head is None and model.auxiliary_head is not None
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())


@pytest.mark.parametrize("output", ["labels", "coarse-labels", "logits"])
def test_it_says_what_it_gives(output: str) -> None:
    model = make(test_cfg=dict(output=output)).eval()
    (spec,) = model.outputs(64, 96)
    (outputs,) = model.infer(torch.rand(2, 3, 64, 96))
    assert spec.shape == ("N", *outputs.shape[1:]) and str(outputs.dtype) == f"torch.{spec.dtype}"
    assert model.infer(torch.rand(2, 3, 64, 96))._fields == (spec.name,)


class Oracle(Segmentor):
    """Predicts the given labels."""

    answer: Tensor

    def _labels(self, images: Tensor) -> Tensor:
        return self.answer


@pytest.mark.parametrize("coarse", [1, 8])
def test_labels_return_to_the_pixels_of_the_image(coarse: int) -> None:
    # A letterboxed image of 50 x 30 (height, width) in an input of 64 x 64: scaled by 1.28 to 64 x 38, padded beyond.
    columns = torch.arange(64 // coarse).repeat_interleave(coarse)[::coarse]
    model = make(type=Oracle)
    model.answer = columns.repeat(64 // coarse, 1)[None].byte()
    sample = SegDataSample(metainfo=dict(ori_shape=(50, 30), scale_factor=(38 / 30, 64 / 50)))
    (predictions,) = model.predict(torch.zeros(1, 3, 64, 64), [sample])
    labels = predictions.pred_sem_seg.data
    assert labels.shape == (1, 50, 30)
    expected = np.floor((np.arange(30) + 0.5) * 38 / 30 / coarse)
    assert np.array_equal(labels[0, 0], expected) and bool((labels == labels[:, :1]).all())


def test_a_window_as_large_as_the_image_is_the_whole_image() -> None:
    whole = make().eval()
    slide = make(test_cfg=dict(mode="slide", crop_size=(64, 96), stride=(64, 96))).eval()
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(whole(x, mode="predict"), slide(x, mode="predict")):
            assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)


def test_windows_are_averaged_where_they_overlap() -> None:
    model = make(test_cfg=dict(mode="slide", crop_size=(64, 64), stride=(64, 32))).eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        (outputs,) = model(x, mode="predict")
        windows = [
            nn.functional.interpolate(model.raw(x[..., at : at + 64]), scale_factor=8, mode="bilinear")
            for at in (0, 32)
        ]
    total = torch.zeros(1, 4, 64, 96)
    total[..., :64] += windows[0]
    total[..., 32:] += windows[1]
    total[..., 32:64] /= 2
    assert float((outputs.pred_sem_seg.data == total.argmax(1)).float().mean()) > 0.999


def test_networks_that_declare_nothing_are_taken_as_they_are() -> None:
    pidnet = dict(
        type="mmseg.PIDNet", in_channels=3, channels=8, ppm_channels=16, num_stem_blocks=1, num_branch_blocks=1
    )
    losses = [
        CE,
        dict(type="mmseg.OhemCrossEntropy"),
        dict(type="mmseg.BoundaryLoss"),
        dict(type="mmseg.OhemCrossEntropy"),
    ]
    head = dict(
        type="mmseg.PIDHead", in_channels=32, channels=16, num_classes=4, norm_cfg=dict(type="BN"), loss_decode=losses
    )
    with pytest.raises(ValueError, match="divisor: got None"):
        make(backbone=pidnet, decode_head=head)
    model = make(backbone=pidnet, decode_head=head, divisor=64).eval()
    assert model.infer(torch.rand(1, 3, 64, 128)).segmentation.shape == (1, 64, 128)
    # Its maps have no specs, and it has stages all the same, in all versions of Python.
    is_staged = isinstance(model, Staged)
    assert is_staged and model.feature_specs == ()
    images = torch.rand(2, 3, 64, 128)
    (features,), raw, *_ = model.stages(images)
    assert features.shape[:2] == (2, 32) and torch.equal(raw, model.raw(images))
    terms = dict(
        logits=dict(type="LogitTerm", loss=dict(type="CWDLoss")),
        maps=dict(type="MapTerm", student="features[0]", teacher="features[0]", loss=dict(type="PKDLoss")),
    )
    student: Any = make(guide=dict(type="Distillation", teacher=model, terms=terms))
    assert [adapter.conv.out_channels for adapter in student.guide.terms["maps"].adapters] == [32]
    losses = student.train().loss(images, samples(2, (64, 128)))
    assert losses["guide.loss_logits"] > 0 and losses["guide.loss_maps"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(test_cfg=dict(mode="tiles")), "test_cfg.mode: got 'tiles'"),
        (dict(test_cfg=dict(output="map")), "test_cfg.output: got 'map'"),
        (dict(test_cfg=dict(mode="slide", crop_size=(64, 64))), "expected mode, output, crop_size, stride"),
        (dict(test_cfg=dict(stride=(64, 64))), "expected mode, output"),
        (dict(decode_head=dict(HEAD, in_index=(0, 3))), "in_index: got .*, allowed are indices of 3 maps"),
        (
            dict(decode_head=dict(HEAD, in_index=(0, 1), num_classes=2, out_channels=1, threshold=0.5)),
            "2 classes and 1",
        ),
        (dict(decode_head=dict(HEAD, in_index=(0, 1), num_classes=256)), "at most 255"),
    ],
)
def test_what_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
