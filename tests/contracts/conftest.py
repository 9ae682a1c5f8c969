from collections.abc import Callable
from pathlib import Path

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from efftasks.registry import MODELS

MODEL_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "models"


@pytest.fixture(scope="session")
def swapped() -> Callable[[str, dict], tuple]:
    """A shipped model with another backbone, and nothing else changed: what it infers on one image of 128 x 192."""

    def infer(head: str, backbone: dict) -> tuple:
        cfg = Config.fromfile(MODEL_CONFIGS / f"{head}.py")
        cfg.model.backbone = ConfigDict(backbone)
        for part in ("head", "decode_head", "auxiliary_head"):
            if part in cfg.model:
                cfg.model[part].num_classes = 3
        with DefaultScope.overwrite_default_scope("efftasks"), torch.no_grad():
            found: tuple = MODELS.build(cfg.model).eval().infer(torch.rand(1, 3, 128, 192))
        return found

    return infer
