"""What a term compares, as text: a part of a network's stages, or the output of a module.

``features`` are all feature maps and ``features[-1]`` is the last; ``raw`` is the raw prediction and ``raw.logits`` a
part of it. All other names are those of modules, whose output is meant: ``backbone.stages.2``, or ``neck[0]`` for the
first of several outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from efftasks.models.backbones.base import PROBE_SIZE, probe
from efftasks.models.guides.recording import check_path, observe
from efftasks.structures.errors import UserError
from efftasks.structures.features import FeatureSpec, Stages

__all__ = ["Measured", "Networks", "Source", "sources_of", "tensors"]

_STAGES = ("features", "raw")
_TEXT = re.compile(r"[A-Za-z_]\w*(\.\w+|\[-?\d+\])*")
_STEP = re.compile(r"\[(-?\d+)\]|(\w+)")


class Source(NamedTuple):
    """A part of what a network computes."""

    text: str  # as in the config
    place: str  # of it in the config, for messages
    module: str | None  # the module whose output it is in; None for one of the stages
    steps: tuple[str | int, ...]  # attributes and indices that lead to it

    def value(self, stages: Stages) -> Any:
        """The value in the stages of a network.

        Raises:
            UserError: there is no such part, or the module did not run.
        """
        if self.module is not None and self.module not in stages.recorded:
            raise UserError(f"{self.place}: got {self.text!r}, but that module does not run when the network does")
        node: Any = stages if self.module is None else stages.recorded[self.module]
        for step in self.steps:
            try:
                node = node[step] if isinstance(step, int) else getattr(node, step)
            except (AttributeError, IndexError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.place}: got {self.text!r}, but a {type(node).__name__} has no {step}"
                ) from error
        return node


def sources_of(texts: str | Sequence[str], place: str) -> tuple[Source, ...]:
    """One source or several, from their texts.

    Raises:
        UserError: a text has another form.
    """
    sources = []
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str) or not _TEXT.fullmatch(text):
            raise UserError(f"{place}: got {text!r}, expected features, raw or a module, such as 'features[0]'")
        steps = tuple(int(index) if index else name for index, name in _STEP.findall(text))
        module = None
        if steps[0] not in _STAGES:
            module, _, rest = text.partition("[")
            steps = tuple(steps[len(module.split(".")) :]) if rest else ()
        sources.append(Source(text, place, module, steps))
    if not sources:
        raise UserError(f"{place}: got an empty list, expected features, raw or modules")
    return tuple(sources)


def tensors(sources: Sequence[Source], stages: Stages) -> list[Tensor]:
    """The tensors of sources, those of a tuple one by one.

    Raises:
        UserError: a source has something else.
    """
    values: list[Tensor] = []
    for source in sources:
        value = source.value(stages)
        parts = list(value) if type(value) in (tuple, list) else [value]
        if not all(isinstance(part, Tensor) for part in parts):
            raise UserError(
                f"{source.place}: got {source.text!r}, a {type(value).__name__}, expected a tensor or several; name a "
                "part of it"
            )
        values += parts
    return values


class Measured:
    """A network, and the channels of what it computes.

    Args:
        network: student or teacher.
        specs: of its feature maps; empty if it declares none.
        size: (height, width) of the blank image on which it runs to measure the outputs of modules.
    """

    def __init__(self, network: Any, specs: Sequence[FeatureSpec], size: tuple[int, int] = PROBE_SIZE) -> None:
        self.network, self.specs, self.size = network, tuple(specs), size

    def check(self, sources: Sequence[Source]) -> None:
        """Check that the modules of sources exist.

        Raises:
            UserError: one does not.
        """
        for source in sources:
            if source.module is not None:
                check_path(self.network, source.module, source.place)

    def check_runs(self, sources: Sequence[Source], in_training: bool) -> None:
        """Check that the modules of sources exist and run on the way to the raw prediction.

        Args:
            sources: any.
            in_training: whether those that may run in training only are allowed.

        Raises:
            UserError: one does not.
        """
        self.check(sources)
        if any(source.module is not None for source in sources):
            self._probed(sources, in_training)

    def channels(self, sources: Sequence[Source]) -> list[int]:
        """The number of channels of each tensor of sources.

        Raises:
            UserError: a source does not exist, or is no map (B, C, H, W).
        """
        self.check(sources)
        if self.specs and all(source.module is None and source.steps[0] == "features" for source in sources):
            return [spec.channels for source in sources for spec in _selected_specs(source, self.specs)]
        maps = tensors(sources, self._probed(sources))
        for tensor in maps:
            if tensor.dim() != 4:
                raise UserError(
                    f"{sources[0].place}: got {', '.join(source.text for source in sources)}, one of shape "
                    f"{tuple(tensor.shape)}, expected maps (B, C, H, W)"
                )
        return [tensor.shape[1] for tensor in maps]

    def _probed(self, sources: Sequence[Source], in_training: bool = False) -> Stages:
        network: nn.Module = self.network
        modules = {source.module: source for source in sources if source.module is not None}
        paths = tuple(dict.fromkeys([*modules, *(path.partition(".")[0] for path in modules)]))
        stages: Any = probe(network, self.size, lambda images: observe(network, images, paths))
        for path, source in modules.items():
            part = path.partition(".")[0]
            if path in stages.recorded or (in_training and part in stages.recorded):
                continue
            got = f"{source.place}: got {source.text!r}, but"
            if part in stages.recorded:
                raise UserError(
                    f"{got} that module does not run in evaluation mode, in which a teacher runs and channels are "
                    "measured; name one that always runs"
                )
            raise UserError(
                f"{got} a {type(network).__name__} does not run its {part} on the way to its raw prediction, and a "
                "guide gets no other outputs; name a part of that way"
            )
        return stages


def _selected_specs(source: Source, specs: tuple[FeatureSpec, ...]) -> Sequence[FeatureSpec]:
    if len(source.steps) == 1:
        return specs
    index = source.steps[1]
    if not isinstance(index, int) or not -len(specs) <= index < len(specs):
        raise UserError(f"{source.place}: got {source.text!r}, allowed are indices of {len(specs)} maps")
    return [specs[index]]


class Networks(NamedTuple):
    """Student and teacher, as terms need them to check their arguments and to build adapters."""

    student: Measured
    teacher: Measured
    place: str = "model.guide"  # of a term in the config, for messages
