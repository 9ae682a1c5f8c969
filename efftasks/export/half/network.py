"""From a network in float32 to one in float16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from efftasks.export.half.choosing import HalfChooser
from efftasks.export.half.converting import inline_constants, to_half
from efftasks.export.half.ranges import measure_peaks
from efftasks.export.quantization.layers import drop_scopes
from efftasks.structures.errors import UserError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["half_network"]


def half_network(network: Any, float_parts: Iterable[str], images: Iterable[np.ndarray]) -> tuple[Any, tuple[str, ...]]:
    """A network in float16, but for what overflows or loses too much there.

    In float32 stay the last layers and all after them, the parts that a model declares, operators whose sums or steps
    need it, and every node that reads or gives values above 1e4 on some images, or none above 6.1e-5.

    Args:
        network: in float32 (ModelProto), as PyTorch's exporter wrote it: its nodes name their modules.
        float_parts: patterns of names of modules that stay in float32.
        images: network inputs float32 (1, 3, H, W), to see how large its numbers become.

    Returns:
        The network (ModelProto), and the names of the layers with weights that stay in float32.

    Raises:
        UserError: no layer is left.
    """
    from onnx import shape_inference

    inline_constants(network)
    network = shape_inference.infer_shapes(network)
    chooser = HalfChooser(network, float_parts)
    chosen = chooser.choose(measure_peaks(network, chooser.candidates, images))
    if not chosen:
        raise UserError("--precision: got 'fp16', but the numbers of no layer fit into 16 bits; export it in fp32")
    result = to_half(network, chosen)
    drop_scopes(result)
    return result, chooser.float_layers(chosen)
