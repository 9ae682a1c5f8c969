"""Execution providers of ONNX Runtime, with one that is built in and cannot start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from efftasks.runtime.backends.onnxruntime import BACKEND
from efftasks.structures.errors import UserError

NAMES = ["CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]


class FakeSession:
    """Uses a provider if its library is there, and else, as ONNX Runtime does, the CPU."""

    asked: list[str] = []
    starts = True

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        self.asked.extend(providers)
        self._used = [*(providers if self.starts else []), "CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys(self._used))

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="images")]

    get_outputs = get_inputs

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: NAMES)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    monkeypatch.setattr(FakeSession, "asked", [])
    (tmp_path / "model.onnx").write_bytes(b"a file")
    return tmp_path / "model.onnx"


def test_names_are_short_and_the_default_is_the_cpu(file):
    assert BACKEND.providers is not None
    assert BACKEND.providers() == ("cpu", "cuda")  # not a service elsewhere
    BACKEND.open(file)
    BACKEND.open(file, provider="cuda")
    assert FakeSession.asked == ["CPUExecutionProvider", "CUDAExecutionProvider"]


def test_a_provider_that_cannot_start_is_no_silent_cpu(file, monkeypatch):
    monkeypatch.setattr(FakeSession, "starts", False)
    with pytest.raises(UserError, match="provider: got 'cuda', which ONNX Runtime cannot start here: it would use cpu"):
        BACKEND.open(file, provider="cuda")
    with pytest.raises(UserError, match=r"provider: got 'tensorrt', expected one .* here: cpu, cuda"):
        BACKEND.open(file, provider="tensorrt")
