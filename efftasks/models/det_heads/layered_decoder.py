"""The base of decoders that run layer by layer, so that they can stop after one, and go on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.models.det_heads.query_raw import LayerOutput

__all__ = ["DecoderOutputs", "LayeredDecoder", "for_inference"]


class DecoderOutputs(NamedTuple):
    """The outputs of the layers in order, and the regressed boxes that a distribution decoder starts from."""

    layers: tuple[LayerOutput, ...]
    first: LayerOutput | None


class LayeredDecoder(nn.Module, ABC):
    """A decoder that runs layer by layer, so that it can stop after one of them, and go on.

    Attributes:
        layers: the decoder layers.
        eval_layers: the number of layers used at inference.
        exit_layers: the number of layers after which an early exit answers; None without one. Their heads are kept for
            inference.
    """

    layers: nn.ModuleList
    eval_layers: int
    exit_layers: int | None = None

    def forward(
        self, x: Tensor, box_logits: Tensor, maps: Sequence[Tensor], blocked: Tensor | None = None
    ) -> DecoderOutputs:
        """Decode.

        Args:
            x: (B, Q, C), the content of the queries.
            box_logits: (B, Q, 4), logits of the initial boxes.
            maps: one (B, C, H_i, W_i) a level.
            blocked: bool (Q, Q) as :class:`SelfAttention` has it.

        Returns:
            The outputs of all layers in training; else that of the last layer in use.
        """
        outputs = []
        state = self.begin(x, box_logits)
        count = len(self.layers) if self.training else self.eval_layers
        for i in range(count):
            state, output = self.step(i, state, maps, blocked, self.training or i == count - 1)
            if output is not None:
                outputs.append(output)
        return DecoderOutputs(tuple(outputs), self.first_output(state))

    def run(self, state: Any, start: int, stop: int, maps: Sequence[Tensor]) -> tuple[Any, LayerOutput]:
        """Run the layers from ``start`` to before ``stop``, at least one: the state after them, and their answer."""
        output = None
        for i in range(start, stop):
            state, output = self.step(i, state, maps, None, i == stop - 1)
        assert output is not None
        return state, output

    def first_output(self, state: Any) -> LayerOutput | None:
        """What else is learned from in training, of the last state."""
        return None

    @abstractmethod
    def begin(self, x: Tensor, box_logits: Tensor) -> Any:
        """The state before the first layer."""

    @abstractmethod
    def step(
        self, i: int, state: Any, maps: Sequence[Tensor], blocked: Tensor | None, answers: bool
    ) -> tuple[Any, LayerOutput | None]:
        """Run layer ``i``: the state after it, and its output if it ``answers``."""

    @abstractmethod
    def carried(self, state: Any) -> tuple[Tensor, ...]:
        """The tensors of a state after a layer that the next needs at inference, batch first."""

    @abstractmethod
    def restored(self, carried: Sequence[Tensor]) -> Any:
        """The state of the tensors of :meth:`carried`."""


def for_inference(decoder: Any, heads_of_answers: Sequence[str]) -> Any:
    """A copy of a decoder with the layers in use, and with the heads of those that answer.

    Args:
        decoder: has ``layers``, ``box_heads`` and ``score_heads``.
        heads_of_answers: its further lists of a head for each layer that answers.
    """
    stripped = copy.deepcopy(decoder)
    last = stripped.eval_layers - 1
    kept = {last} if stripped.exit_layers is None else {last, stripped.exit_layers - 1}
    stripped.layers = stripped.layers[: last + 1]
    stripped.box_heads = stripped.box_heads[: last + 1]
    for name in ("score_heads", *heads_of_answers):
        heads = getattr(stripped, name)
        setattr(stripped, name, nn.ModuleList(heads[i] if i in kept else nn.Identity() for i in range(last + 1)))
    return stripped
