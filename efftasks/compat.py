"""The one place that makes mmdet, mmseg and timm importable where compiled operators are missing.

``pip install onedl-mmcv`` gives mmcv without its extension module ``mmcv._ext``. mmdet's model package imports
``mmcv.ops`` unguarded and would fail as a whole, although hardly anything in it calls a compiled operator. Importing
this module puts a stand-in for ``mmcv._ext`` in place, whose every operator raises :class:`CompiledOperatorMissing`
*when it is called*. A really compiled mmcv is left alone.

mmengine, mmseg, timm and transformers import torchvision where it is installed, and one that was built for another
torch (the one from PyPI beside a CPU build of PyTorch) fails to import with an error that none of them expects. What
they need of it is Python only: importing this module lets that in.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["CompiledOperatorMissing", "has_compiled_mmcv"]

_EXTENSION = "mmcv._ext"


class CompiledOperatorMissing(NotImplementedError):
    """A compiled operator of mmcv was called, and this mmcv has none."""


class _MissingOperator:
    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise CompiledOperatorMissing(
            f"the compiled mmcv operator {self.__name__!r} was called, but this mmcv was installed without compiled "
            "operators; use a module that does not need it (everything in efftasks does not), or build mmcv from "
            "source with its operators"
        )


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> _MissingOperator:
        if name.startswith("__"):  # the import system probes dunder names (__path__, __spec__)
            raise AttributeError(name)
        return _MissingOperator(name)


def has_compiled_mmcv() -> bool:
    """Whether mmcv's own compiled extension (not the stand-in) is there."""
    loaded = sys.modules.get(_EXTENSION)
    if loaded is not None:
        return not isinstance(loaded, _StandIn)
    return importlib.util.find_spec("mmcv") is not None and importlib.util.find_spec(_EXTENSION) is not None


def _let_torchvision_in() -> None:
    """Import torchvision, if it is installed, with the schemas of its operators defined where they did not load.

    Its import asks for the schemas of two; they get no implementation, so that calling one says so.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        importlib.import_module("torchvision")


_KEPT: list[Any] = []  # schemas go with their library

_let_torchvision_in()
if not has_compiled_mmcv():
    _stand_in = _StandIn(_EXTENSION, doc="Stand-in of efftasks for mmcv's compiled operators.")
    # mmengine asks for the spec of the module; without one the question itself fails.
    _stand_in.__spec__ = ModuleSpec(_EXTENSION, loader=None)
    sys.modules[_EXTENSION] = _stand_in
