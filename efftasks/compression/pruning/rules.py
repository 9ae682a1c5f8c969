"""What operations do to the channels of tensors: the rules of ``tracing.py``, by the name of the function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from efftasks.compression.pruning.record import Axis, Channels, Trace, channel_count, tensors_of

__all__ = ["follow"]

# Each output value depends on the values at its own place.
ELEMENTWISE = {
    *("relu", "relu6", "silu", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh", "gelu", "leaky_relu", "elu"),
    *("mish", "softplus", "clamp", "clip", "clamp_min", "clamp_max", "add", "sub", "mul", "div", "true_divide", "neg"),
    *("abs", "exp", "log", "sqrt", "rsqrt", "pow", "square", "maximum", "minimum", "lerp", "dropout", "to", "float"),
    *("double", "half", "type_as", "contiguous", "clone", "detach", "addcmul", "rsub", "where", "identity"),
    *("feature_dropout", "dropout2d", "drop_path", "reciprocal", "hardshrink", "log_sigmoid", "logsigmoid"),
}
# Maps of another height and width, channel by channel.
SPATIAL = {
    *("interpolate", "upsample", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("max_pool2d_with_indices", "grid_sample"),
}
REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "var", "std"}
# Reads of attributes and constants; nothing flows through them.
NOTHING = {
    "size",
    "dim",
    "numel",
    "ndimension",
    "is_floating_point",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_tensor",
    "new_empty",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "requires_grad_",
    "is_complex",
    "data_ptr",
    "stride",
    "storage_offset",
    "is_contiguous",
    "__len__",
    "element_size",
    "get_device",
    "__format__",
    "__repr__",
}


def follow(
    trace: Trace, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any, owners: Mapping[int, str]
) -> None:
    """Give the results of an operation their labels, and merge or lock those of its operands.

    Args:
        trace: is changed.
        func: the function, as ``__torch_function__`` gets it.
        args: its arguments.
        kwargs: its arguments by name.
        out: its result.
        owners: id of a parameter -> name of its layer, or of itself if it belongs to no layer.
    """
    name = _name(func)
    if name == "__get__":
        _attribute(trace, func, args, out)
        return
    if name == "__setitem__":
        trace.lock_all(list(args), "a part of them is overwritten")
        return
    if name in NOTHING or not any(True for _ in tensors_of(out)):
        return
    inputs = [*tensors_of(list(args)), *tensors_of(dict(kwargs))]
    if not any(trace.of(tensor) is not None for tensor in inputs) and not _parameters(inputs, owners):
        return
    rule = RULES.get(name)
    if rule is None or not rule(trace, name, args, kwargs, out, owners):
        if rule is None:
            trace.unknown.add(name)
        _lock(trace, inputs, owners, f"{name} reads them")


def _name(func: Any) -> str:
    """``__iadd__`` and ``add_`` are ``add``."""
    name = getattr(func, "__name__", "unknown")
    if name.startswith("__") and name not in ("__get__", "__set__", "__getitem__", "__setitem__", "__len__"):
        name = name.strip("_")
        if name not in RULES and name[:1] in "ir" and name[1:] in RULES:
            name = name[1:]
    if name.startswith("_") and not name.startswith("__"):
        name = name[1:]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _parameters(inputs: Sequence[Tensor], owners: Mapping[int, str]) -> bool:
    return any(id(tensor) in owners for tensor in inputs)


def _lock(trace: Trace, inputs: Sequence[Tensor], owners: Mapping[int, str], reason: str) -> None:
    for tensor in inputs:
        trace.lock(trace.of(tensor), reason)
        owner = owners.get(id(tensor))
        if owner is None:
            continue
        layer = trace.layers.get(owner)
        sides = ("norm",) if isinstance(layer, nn.BatchNorm2d) else ("in", "out")
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            for side in sides:
                trace.labels.lock(trace.axis(Axis(owner, side), channel_count(layer, side)), f"{reason}, not {owner}")


def _attribute(trace: Trace, func: Any, args: Sequence[Any], out: Any) -> None:
    channels = trace.of(args[0]) if args else None
    if channels is None or not isinstance(out, Tensor):
        return
    if out.shape == args[0].shape:  # data, real
        trace.set(out, channels)
    else:
        trace.lock(channels, "an attribute of a tensor changes its shape")


def _elementwise(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    if not isinstance(out, Tensor):
        return False
    inputs = [*tensors_of(list(args)), *tensors_of(dict(kwargs))]
    followed = [channels for tensor in inputs if (channels := trace.of(tensor)) is not None]
    if not followed:
        return False
    # Channels along the last dimension stay there if more dimensions are put before.
    places = {channels.dim + out.dim() - _dims(trace, inputs, channels) for channels in followed}
    if len(places) != 1:
        return False
    dim = places.pop()
    width = out.shape[dim]
    wide = [channels for channels in followed if len(channels.labels) == width]
    if not wide or any(len(channels.labels) not in (1, width) for channels in followed):
        return False
    for channels in wide[1:]:
        trace.labels.tie(wide[0].labels, channels.labels)
    for tensor in inputs:
        if trace.of(tensor) is None and not _fits(trace, tensor, dim - out.dim(), wide[0], owners):
            return False
    trace.set(out, Channels(dim, wide[0].labels))
    return True


def _dims(trace: Trace, inputs: Sequence[Tensor], channels: Channels) -> int:
    return next(tensor.dim() for tensor in inputs if trace.of(tensor) is channels)


def _fits(trace: Trace, tensor: Tensor, dim: int, channels: Channels, owners: Mapping[int, str]) -> bool:
    """Whether an operand without labels has one value for all channels, or is a parameter with one for each.

    Args:
        dim: of the channels, negative.
    """
    if tensor.dim() < -dim or tensor.shape[dim] == 1:
        return True
    owner = owners.get(id(tensor))
    if owner is None or owner in trace.layers:
        return False
    trace.labels.tie(channels.labels, trace.axis(Axis(owner, f"dim{tensor.dim() + dim}"), tensor.shape[dim]))
    return True


def _spatial(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    tensor = args[0] if args else kwargs.get("input")
    channels = trace.of(tensor)
    result = out[0] if isinstance(out, tuple) else out
    if channels is None or channels.dim != 1 or tensor.dim() != 4 or result.shape[1] != len(channels.labels):
        return False
    trace.lock_all(list(args[1:]), f"{name} reads them as places")
    trace.set(result, channels)
    return True


def _pad(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    widths = kwargs["pad"] if "pad" in kwargs else args[1]
    if channels is None or len(widths) > 2 * (args[0].dim() - 1 - channels.dim):
        return False
    trace.set(out, channels)
    return True


def _reduction(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    dims = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None
    if channels is None or dims is None or isinstance(dims, Tensor):
        return False
    total = args[0].dim()
    reduced = {d % total for d in ([dims] if isinstance(dims, int) else dims)}
    if channels.dim in reduced:
        return False
    result = out if isinstance(out, Tensor) else out[0]
    gone = sum(d < channels.dim for d in reduced) if result.dim() < total else 0
    trace.set(result, Channels(channels.dim - gone, channels.labels))
    return True


def _softmax(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    dim = kwargs["dim"] if kwargs.get("dim") is not None else args[1] if len(args) > 1 else None
    if channels is None or dim is None or dim % args[0].dim() == channels.dim:
        return False
    trace.set(out, channels)
    return True


def _permute(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    if channels is None or kwargs:
        return False
    total = args[0].dim()
    if name == "t":
        order = [1, 0]
    elif name == "permute":
        order = [d % total for d in (args[1] if isinstance(args[1], (tuple, list)) else args[1:])]
    else:
        order = list(range(total))
        a, b = args[1] % total, args[2] % total
        order[a], order[b] = order[b], order[a]
    trace.set(out, Channels(order.index(channels.dim), channels.labels))
    return True


def _reshape(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    """The channel dimension is unchanged where all dimensions before it, or all after it, are the same."""
    channels = trace.of(args[0])
    if channels is None:
        return False
    before, after, dim = tuple(args[0].shape), tuple(out.shape), channels.dim
    if before[: dim + 1] == after[: dim + 1]:
        trace.set(out, channels)
        return True
    tail = len(before) - dim
    if len(after) >= tail and before[dim:] == after[len(after) - tail :]:
        trace.set(out, Channels(len(after) - tail, channels.labels))
        return True
    return False


def _unsqueeze(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    if channels is None:
        return False
    at = (kwargs["dim"] if "dim" in kwargs else args[1]) % out.dim()
    trace.set(out, Channels(channels.dim + (at <= channels.dim), channels.labels))
    return True


def _expand(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    if channels is None:
        return False
    dim = channels.dim + out.dim() - args[0].dim()
    if out.shape[dim] != len(channels.labels):
        return False
    trace.set(out, Channels(dim, channels.labels))
    return True


def _cat(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    tensors = list(args[0] if args else kwargs["tensors"])
    dim = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else 0
    parts = [trace.of(tensor) for tensor in tensors]
    places = {part.dim for part in parts if part is not None}
    if len(places) != 1:
        return False
    place = places.pop()
    if dim % out.dim() != place:
        return _elementwise_parts(trace, parts, out, place)
    labels: list[int] = []
    for tensor, part in zip(tensors, parts):
        if part is None:
            fixed = trace.labels.new(tensor.shape[place])
            trace.labels.lock(fixed, "a concatenation with channels that must stay")
            labels.extend(fixed)
        else:
            labels.extend(part.labels)
    trace.set(out, Channels(place, tuple(labels)))
    return True


def _elementwise_parts(trace: Trace, parts: Sequence[Channels | None], out: Tensor, place: int) -> bool:
    """Tensors joined along another dimension: their channels are the same."""
    labeled = [part for part in parts if part is not None]
    if len(labeled) != len(parts) or len({len(part.labels) for part in labeled}) != 1:
        return False
    for part in labeled[1:]:
        trace.labels.tie(labeled[0].labels, part.labels)
    trace.set(out, Channels(place, labeled[0].labels))
    return True


def _split(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    """Equal parts: the channels at the same place of each are one, so that the parts stay equal."""
    channels = trace.of(args[0])
    dim = kwargs["dim"] if "dim" in kwargs else args[2] if len(args) > 2 else 0
    if channels is None:
        return False
    if dim % args[0].dim() != channels.dim:
        for part in out:
            trace.set(part, channels)
        return True
    sizes = [part.shape[channels.dim] for part in out]
    if name != "chunk" or len(set(sizes)) != 1:
        return False
    parts = [channels.labels[i * sizes[0] : (i + 1) * sizes[0]] for i in range(len(sizes))]
    for part in parts[1:]:
        trace.labels.tie(parts[0], part)
    for tensor, labels in zip(out, parts):
        trace.set(tensor, Channels(channels.dim, labels))
    return True


def _unbind(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    channels = trace.of(args[0])
    dim = (kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else 0) % args[0].dim()
    if channels is None or dim == channels.dim:
        return False
    for part in out:
        trace.set(part, Channels(channels.dim - (dim < channels.dim), channels.labels))
    return True


def _getitem(trace: Trace, name: str, args: Any, kwargs: Any, out: Any, owners: Mapping[int, str]) -> bool:
    """Slices of other dimensions than that of the channels."""
    channels = trace.of(args[0])
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if channels is None or any(not isinstance(i, (slice, int)) and i is not None and i is not Ellipsis for i in index):
        return False
    if any(i is None for i in index):
        return False
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = index[:at] + (slice(None),) * (args[0].dim() - len(index) + 1) + index[at + 1 :]
    if len(index) > channels.dim and index[channels.dim] != slice(None):
        return False
    gone = sum(isinstance(i, int) for i in index[: channels.dim])
    trace.set(out, Channels(channels.dim - gone, channels.labels))
    return True


Rule = Callable[[Trace, str, Any, Any, Any, Mapping[int, str]], bool]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(SPATIAL, _spatial),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(("permute", "transpose", "swapaxes", "t"), _permute),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "view_as", "reshape_as"), _reshape),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("chunk", "split", "tensor_split", "split_with_sizes"), _split),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "pad": _pad,
    "softmax": _softmax,
    "unsqueeze": _unsqueeze,
    "unbind": _unbind,
    "__getitem__": _getitem,
}
