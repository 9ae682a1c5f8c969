"""Choose between float32 and bfloat16 on a CPU by the measured time of training steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook

from efftasks.engine.amp import CpuAmpOptimWrapper, has_fast_bfloat16
from efftasks.registry import HOOKS

__all__ = ["ChoosePrecision"]

_WARMUP, _TRIALS = 2, 4  # steps in each precision, untimed and timed: the first ones compile kernels
_GAIN = 0.97  # bfloat16 is chosen if a step takes at most this part of the time in float32
_KEY = "precision"


@HOOKS.register_module()
class ChoosePrecision(Hook):
    """Train in bfloat16 only where that is faster than float32, and log the choice with its reason.

    A processor without bfloat16 arithmetic trains in float32 from the first step. On one that has it, the first twelve
    steps alternate between both precisions and are timed, and the faster one is chosen. A resumed run keeps the choice
    of the checkpoint, which has it as ``precision`` in its ``meta``.

    Args:
        mode: ``auto``, or ``bfloat16`` to always train in bfloat16.
        clock: returns seconds; tests pass their own.
        capable: whether the processor has bfloat16 arithmetic; None detects it.
    """

    priority = "VERY_HIGH"  # the time of other hooks is not measured

    def __init__(
        self,
        mode: str = "auto",
        clock: Callable[[], float] = time.perf_counter,
        capable: bool | None = None,
    ) -> None:
        if mode not in ("auto", "bfloat16"):
            raise ValueError(f"mode: got {mode!r}, allowed are 'auto' and 'bfloat16'")
        self.mode = mode
        self._clock = clock
        self._capable = capable
        self._times: dict[bool, list[float]] = {False: [], True: []}  # in float32, and in bfloat16
        self._is_trial = False
        self._start = 0.0

    def before_train(self, runner: Any) -> None:
        """Choose the precision if no trial is needed, or begin the trial."""
        resumed = runner.message_hub.runtime_info.get(_KEY)
        if self.mode == "bfloat16":
            self._choose(runner, True, "as requested")
        elif resumed is not None and runner.iter > 0:
            self._choose(runner, resumed == "bfloat16", "as in the resumed checkpoint")
        elif not (has_fast_bfloat16() if self._capable is None else self._capable):
            self._choose(runner, False, "this processor has no bfloat16 arithmetic; --amp bfloat16 forces it")
        else:
            self._is_trial = True

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Switch the precision during the trial, and start the clock."""
        if self._is_trial:
            _wrapper(runner).enabled = len(self._times[True]) < len(self._times[False])
            self._start = self._clock()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Record the time of a step of the trial, and choose the precision after the last."""
        if not self._is_trial:
            return
        self._times[_wrapper(runner).enabled].append(self._clock() - self._start)
        if len(self._times[True]) < _WARMUP + _TRIALS:
            return
        self._is_trial = False
        plain, mixed = (statistics.median(self._times[key][_WARMUP:]) for key in (False, True))
        reason = f"a step takes {mixed:.3g} s in bfloat16 and {plain:.3g} s in float32"
        self._choose(runner, mixed <= _GAIN * plain, reason)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the precision to the checkpoint's ``meta``."""
        checkpoint["meta"][_KEY] = runner.message_hub.runtime_info.get(_KEY, "on trial")

    def _choose(self, runner: Any, mixed: bool, reason: str) -> None:
        _wrapper(runner).enabled = mixed
        name = "bfloat16" if mixed else "float32"
        runner.message_hub.update_info(_KEY, name)
        runner.logger.info(f"mixed precision: training in {name} ({reason})")


def _wrapper(runner: Any) -> CpuAmpOptimWrapper:
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, CpuAmpOptimWrapper):
        raise ValueError(
            f"optim_wrapper.type: got {type(wrapper).__name__}, expected CpuAmpOptimWrapper beside ChoosePrecision"
        )
    return wrapper
