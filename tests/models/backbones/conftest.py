"""timm and mmseg want torchvision, and one built for another torch (a CUDA wheel beside a CPU torch) does not import.

What they need of it is Python only: with the schemas of its operators defined, it imports.
"""

from __future__ import annotations

import importlib
import importlib.util

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def torchvision_imports() -> object:
    """Make ``import torchvision`` work where it is installed; the library is kept, for its schemas go with it."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        return library
    return None
