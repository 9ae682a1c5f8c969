from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from efftasks import apis


@pytest.fixture(scope="session")
def painted(module_at: Callable[[Path], ModuleType]) -> ModuleType:
    """The module painted.py beside this file."""
    return module_at(Path(__file__).with_name("painted.py"))


@pytest.fixture(scope="session")
def spread_detector() -> Callable[[Any], Any]:
    """A linked config of o2o on the six shapes -> an untrained one: scores that spread, boxes of some strides.

    So do those of trained ones: equal scores would let detections change places.
    """

    def built(cfg: Any) -> Any:
        torch.manual_seed(0)
        model = apis.build(cfg)
        for scores, sides in zip(model.head.one_to_one.classes, model.head.one_to_one.boxes):
            torch.nn.init.normal_(scores[-1].weight, 0.0, 0.1)
            torch.nn.init.constant_(scores[-1].bias, -1.0)
            torch.nn.init.normal_(sides[-1].weight, 0.0, 1e-3)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # one batch gives the statistics
        with torch.no_grad():
            model.train()(torch.rand(4, 3, *cfg.image_size))
        model.cfg, model.dataset_meta = cfg, dict(classes=tuple(cfg.classes), category_ids=(1, 2, 3, 4, 5, 6))
        return model.eval()

    return built
