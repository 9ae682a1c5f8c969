"""Packages of machine code: portable ones, which give what the model gives and say what they are."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks.export.exporters.aotinductor import export_aotinductor, write_metadata
from efftasks.runtime.backends.aotinductor import BACKEND
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler")


class Detector(nn.Module):
    """Boxes by a convolution, and the best cells."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 1))

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes = self.stem(images).flatten(2).transpose(1, 2)
        scores, index = boxes.sum(-1).topk(5)
        return boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores


class Branches(nn.Module):
    """What cannot be traced."""

    def infer(self, images: Tensor) -> tuple[Tensor]:
        return (images * 2,) if float(images.sum()) > 0 else (images,)


SPEC = ArtifactSpec(
    "detection",
    ("a",),
    (1,),
    InputSpec("pixels", 16, 24, mean=(0, 0, 0), std=(255, 255, 255), dynamic_batch=False),
    (OutputSpec("boxes", ("N", 5, 4), "float32", ""), OutputSpec("scores", ("N", 5), "float32", "")),
    backend="aotinductor",
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector().eval()


@pytest.fixture(scope="module")
def path(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_aotinductor(detector, SPEC, tmp_path_factory.mktemp("package") / "model.pt2")


@pytest.mark.slow
def test_it_gives_what_the_model_gives(detector, path):
    session = BACKEND.open(path)
    assert (session.inputs, session.outputs) == (("pixels",), ("boxes", "scores"))
    images = torch.rand(3, 3, 16, 24)
    outputs = session.run(images.numpy())
    with torch.no_grad():
        boxes, scores = detector.infer(images)
    np.testing.assert_allclose(outputs["boxes"], boxes.numpy(), atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], scores.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_description_is_inside_and_can_be_replaced(path, tmp_path):
    copied = Path(shutil.copy(path, tmp_path / "model.pt2"))
    assert _description(copied) == SPEC
    write_metadata(copied, SPEC.with_verify({"passed": True}))
    write_metadata(copied, SPEC.with_verify({"passed": True, "images": 2}))
    assert _description(copied).verify == {"passed": True, "images": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


def _description(path: Path) -> ArtifactSpec:
    text = BACKEND.open(path).metadata
    assert text is not None
    return ArtifactSpec.from_json(text)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64" or shutil.which("objdump") is None, reason="reads x86-64 code")
def test_machine_code_runs_on_every_processor_with_avx2(path, tmp_path):
    """Registers of 512 bits are of AVX-512 alone; the machine that compiles may have them."""
    with zipfile.ZipFile(path) as package:
        (name,) = (entry for entry in package.namelist() if entry.endswith(".so"))
        package.extract(name, tmp_path)
    code = subprocess.run(["objdump", "-d", str(tmp_path / name)], capture_output=True, text=True, check=True).stdout
    assert re.search(r"%ymm\d", code) and not re.search(r"%zmm\d|%k[1-7]\b", code)


def test_what_cannot_be_compiled_is_refused(tmp_path):
    for change in (dict(dynamic_batch=True), dict(dynamic_size=True), dict(layout="NHWC")):
        (name,) = change
        spec: Any = replace(SPEC, input=replace(SPEC.input, **change))
        with pytest.raises(UserError, match=rf"input\.{name}: got .*, a \.pt2 file is written with "):
            export_aotinductor(Detector(), spec, tmp_path / "model.pt2")
    with pytest.raises(UserError, match="Conv2d has no method infer"):
        export_aotinductor(nn.Conv2d(3, 2, 1), SPEC, tmp_path / "model.pt2")
    with pytest.raises(WorkError, match=r"model\.pt2: the network cannot be compiled \("):
        export_aotinductor(Branches(), SPEC, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_another_file_is_named(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(json.dumps({"no": "package"}).encode())
    with pytest.raises(UserError, match=r"model\.pt2: corrupt, not written by this package, or compiled for another"):
        BACKEND.open(path)
