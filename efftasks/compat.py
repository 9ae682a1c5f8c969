"""Makes mmdet, mmseg and timm importable where compiled operators are missing. Import it before them.

``pip install onedl-mmcv`` installs mmcv without its extension module ``mmcv._ext``. mmdet's model package imports
``mmcv.ops`` and would fail, although few of its classes call a compiled operator. Importing this module installs a
substitute for ``mmcv._ext`` whose operators raise :class:`CompiledOperatorMissing` *when they are called*. A compiled
mmcv is not changed.

mmengine, mmseg, timm and transformers import torchvision if it is installed. A torchvision that was built for another
PyTorch (the one from PyPI with a CPU build of PyTorch) raises an error that none of them handles. They only need its
Python code, and importing this module makes that importable.
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
    """A compiled operator of mmcv was called, but mmcv was installed without them."""


class _MissingOperator:
    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise CompiledOperatorMissing(
            f"the compiled mmcv operator {self.__name__!r} was called, but this mmcv was installed without compiled "
            "operators; use a module that does not need it (everything in efftasks does not), or build mmcv from "
            "source with its operators"
        )


class _ExtensionStub(ModuleType):
    def __getattr__(self, name: str) -> _MissingOperator:
        if name.startswith("__"):  # the import system probes dunder names (__path__, __spec__)
            raise AttributeError(name)
        return _MissingOperator(name)


def has_compiled_mmcv() -> bool:
    """Whether mmcv has its compiled extension."""
    loaded = sys.modules.get(_EXTENSION)
    if loaded is not None:
        return not isinstance(loaded, _ExtensionStub)
    return importlib.util.find_spec("mmcv") is not None and importlib.util.find_spec(_EXTENSION) is not None


def _import_torchvision() -> None:
    """Import torchvision if it is installed, and define the schemas of its operators if its extension did not load.

    Its import needs the schemas of two operators. They get no implementation, so that calling one raises an error.
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
        _LIBRARIES.append(library)
        importlib.import_module("torchvision")


_LIBRARIES: list[Any] = []  # schemas are removed when their library is deleted

_import_torchvision()
if not has_compiled_mmcv():
    _stub = _ExtensionStub(_EXTENSION, doc="Substitute of efftasks for mmcv's compiled operators.")
    # mmengine looks up the spec of the module, which raises an error if it is None.
    _stub.__spec__ = ModuleSpec(_EXTENSION, loader=None)
    sys.modules[_EXTENSION] = _stub
