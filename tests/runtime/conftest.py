"""A small detector whose scores can be told apart, for tests that compare two ways of running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor
from efftasks.ops.topk import top_pairs
from efftasks.structures.spec import ArtifactSpec, DecoderSpec, InputSpec, OutputSpec, Undecoded

SIZE, STRIDE, COUNT = (64, 96), 8, 50


class Dense(nn.Module):
    """Logits (B, A, 3) and boxes (B, A, 4) of every cell; ``infer`` gives the best pairs of them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.classes, self.boxes = (nn.Conv2d(3, channels, STRIDE, STRIDE) for channels in (3, 4))
        for conv in (self.classes, self.boxes):
            nn.init.normal_(conv.weight, std=0.3, generator=generator)

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = (conv(images).flatten(2).transpose(1, 2) for conv in (self.classes, self.boxes))
        corners = 20 + 4 * boxes[..., :2]
        return logits, torch.cat([corners, corners + 3 + boxes[..., 2:].abs()], -1)

    def infer(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, boxes = self.candidates(images)
        best, labels, index = top_pairs(logits, COUNT)
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), best.sigmoid(), labels


class BeforeTopK(nn.Module):
    """The same without the end of its decoder: boxes and scores of every cell."""

    def __init__(self, model: Dense) -> None:
        super().__init__()
        self.model = model

    def infer_undecoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.model.candidates(images)
        return boxes, logits.sigmoid()

    def undecoded(self, height: int, width: int) -> Undecoded:
        cells = height * width // STRIDE**2
        outputs = (
            OutputSpec("boxes", ("N", cells, 4), "float32", ""),
            OutputSpec("scores", ("N", cells, 3), "float32", ""),
        )
        return Undecoded(outputs, DecoderSpec("top-pairs", COUNT))


@pytest.fixture(scope="session")
def detector() -> tuple[Dense, ArtifactSpec]:
    """The network with its decoder inside, and its description."""
    spec = ArtifactSpec(
        task="detection",
        classes=("disc", "triangle", "star"),
        category_ids=(1, 2, 3),
        input=InputSpec("images", *SIZE, mean=(0, 0, 0), std=(255, 255, 255), divisor=STRIDE),
        outputs=(
            OutputSpec("boxes", ("N", COUNT, 4), "float32", ""),
            OutputSpec("scores", ("N", COUNT), "float32", ""),
            OutputSpec("labels", ("N", COUNT), "int64", ""),
        ),
    )
    return Dense().eval(), spec


@pytest.fixture(scope="session")
def outside_detector(detector: tuple[Dense, ArtifactSpec]) -> tuple[BeforeTopK, ArtifactSpec]:
    """The same network without its decoder, and the description of that."""
    model, spec = detector
    before = BeforeTopK(model)
    form = before.undecoded(*SIZE)
    return before, replace(spec, outputs=form.outputs, decode="outside", decoder=form.decoder)


@pytest.fixture(scope="session")
def same_detections() -> Callable[[Predictor, Predictor], None]:
    """Asserts that two predictors find the same in random pictures; those whose scores nearly tie may change places."""

    def compare(reference: Predictor, other: Predictor) -> None:
        random = np.random.default_rng(0)
        images = [random.integers(0, 256, (100 + 30 * i, 130, 3), dtype=np.uint8) for i in range(3)]
        for a, b in zip(reference(images, batch_size=3), other(images, batch_size=3)):
            assert len(a) == len(b) == COUNT
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
            gaps = np.abs(np.diff(a.scores, prepend=2, append=-1)) > 4e-5
            clear = gaps[:-1] & gaps[1:]
            assert clear.sum() > 25
            np.testing.assert_array_equal(a.labels[clear], b.labels[clear])
            np.testing.assert_allclose(a.boxes[clear], b.boxes[clear], atol=1e-3)

    return compare
