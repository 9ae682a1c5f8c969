"""Small detectors with an exit, and a batch that they learn from."""

from __future__ import annotations

from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from efftasks.apis import load_config
from efftasks.models.detectors import Detector
from efftasks.registry import MODELS

SIDE = 64
CONFIGS = {
    "backbone": "o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_exit",
    "boxes": "rtdetrv2-s_resnet18vd_1xb8-60e_custom-640_exit",
    "distributions": "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320",
}


class Made:
    """Builds detectors with an exit, and a batch for them."""

    def __call__(self, kind: str, **changes: Any) -> Detector:
        """A detector, freshly initialized from a seed, in evaluation mode.

        Args:
            kind: ``backbone``, or the decoder of the detector: ``boxes`` or ``distributions``.
            changes: arguments of the exit to replace.
        """
        cfg = load_config(CONFIGS[kind], dict(classes=("a", "b", "c"))).model
        cfg.setdefault("early_exit", dict(type="DecoderExit", layers=2, gate=dict(type="AgreementGate")))
        cfg.early_exit.update(changes)
        return self.build(cfg)

    @staticmethod
    def build(cfg: Any) -> Detector:
        """The detector of a config; its gate ranks as if it had seen 64 images."""
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("efftasks"):
            model: Detector = MODELS.build(cfg)
        for module in model.modules():  # of an untrained network all images look alike
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.8)  # type: ignore[union-attr]
        return model.eval()

    @staticmethod
    def static(model: Detector, kind: str) -> Detector:
        """The detector without the exit, with the same weights."""
        cfg = load_config(CONFIGS[kind], dict(classes=("a", "b", "c"))).model
        cfg.pop("early_exit", None)
        static = Made.build(cfg)
        own = {key: value for key, value in model.state_dict().items() if not key.startswith("early_exit.")}
        static.load_state_dict(own)
        return static

    @staticmethod
    def images(count: int) -> Tensor:
        """Images (count, 3, SIDE, SIDE) of different contrast."""
        images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        return images * torch.linspace(0.2, 2.0, count)[:, None, None, None]

    @staticmethod
    def samples(count: int) -> list[DetDataSample]:
        """Two objects an image."""
        samples = []
        for i in range(count):
            boxes = torch.tensor([[4.0, 4, 20 + 8 * i, 40], [30, 20, 60, 60]])
            sample = DetDataSample(metainfo=dict(ori_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0)))
            sample.gt_instances = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([0, 2]))
            sample.ignored_instances = sample.gt_instances[:0]
            samples.append(sample)
        return samples

    def loss(self, model: Detector) -> Tensor:
        """The sum of the losses of a batch of two, in training mode."""
        model.train()
        losses = model(self.images(2), self.samples(2), mode="loss")
        return torch.stack([value for key, value in losses.items() if "loss" in key]).sum()


@pytest.fixture
def made() -> Made:
    return Made()
