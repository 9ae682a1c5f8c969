"""Recording what modules inside of a network return, by their names, during one forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from efftasks.structures.errors import UserError
from efftasks.structures.features import Stages
from efftasks.structures.protocols import Staged

__all__ = ["check_path", "observe", "recorded"]


@contextmanager
def recorded(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The outputs of modules by name, filled while the context is open; the hooks are removed at its end.

    Of a module that runs several times, it is the last output. Tensors are copies, with gradient.

    Args:
        network: has the modules.
        paths: their names, as in ``named_modules()``.
    """
    outputs: dict[str, Any] = {}
    handles = []

    def record(path: str, module: nn.Module, inputs: object, output: Any) -> None:
        # A copy: the next module may be an activation that works in place.
        outputs[path] = pytree.tree_map_only(Tensor, Tensor.clone, output)

    try:
        for path in paths:
            handles.append(network.get_submodule(path).register_forward_hook(partial(record, path)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def observe(network: nn.Module, images: Tensor, paths: Sequence[str] = ()) -> Stages:
    """Run a network on images (B, 3, H, W) -> its stages, with the outputs of the modules ``paths``.

    A network without ``stages`` (of mmdet, mmseg, a backbone) is called, and what it returns is its raw prediction.
    """
    with recorded(network, paths) as outputs:
        stages = network.stages(images) if isinstance(network, Staged) else Stages((), network(images))
    return stages._replace(recorded=outputs, model=network)


def check_path(network: nn.Module, path: str, place: str) -> None:
    """Check that a network has a module of this name.

    Args:
        network: any.
        path: the name.
        place: of the name in the config, for the message.

    Raises:
        UserError: there is none; the message lists similar names.
    """
    names = [name for name, _ in network.named_modules() if name]
    if path not in names:
        near = difflib.get_close_matches(path, names, n=3, cutoff=0.5) or [name for name in names if "." not in name]
        raise UserError(
            f"{place}: got {path!r}, which is no module of {type(network).__name__}; similar are {', '.join(near)}"
        )
