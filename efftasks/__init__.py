"""efftasks: accurate, NMS-free vision models for small hardware, from one config to a verified file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efftasks.runtime.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import efftasks` (which every registry lookup does) costs nothing.
    if name == "Predictor":
        from efftasks.runtime.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'efftasks' has no attribute {name!r}")
