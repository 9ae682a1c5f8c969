"""The choice between float32 and bfloat16, with a clock that is made up."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from efftasks import apis
from efftasks.engine.amp import CpuAmpOptimWrapper, has_fast_bfloat16
from efftasks.engine.hooks.precision import ChoosePrecision
from efftasks.structures.errors import UserError


class Loop:
    """A runner as far as the hook looks, whose steps take as long as said."""

    def __init__(self, mode: str = "auto", capable: bool = True, **seconds: float) -> None:
        self.time, self.seconds = 0.0, seconds
        self.lines: list[str] = []
        self.hook = ChoosePrecision(mode, clock=lambda: self.time, capable=capable)
        model = nn.Linear(2, 2)
        self.optim_wrapper = CpuAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        self.message_hub = MessageHub(f"loop {id(self)}")
        self.logger = SimpleNamespace(info=self.lines.append)
        self.iter = 0
        self.dtypes: list[torch.dtype] = []
        self.model = model

    def train(self, steps: int) -> str:
        self.hook.before_train(self)
        for i in range(steps):
            self.hook.before_train_iter(self, i)
            with self.optim_wrapper.optim_context(self.model):
                self.dtypes.append(self.model(torch.ones(1, 2)).dtype)
            first = 10.0 if i < 4 else 0.0  # kernels are compiled
            self.time += first + self.seconds["bfloat16" if self.dtypes[-1] == torch.bfloat16 else "float32"]
            self.hook.after_train_iter(self, i)
            self.iter += 1
        return self.message_hub.runtime_info.get("precision", "none")


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"), [(1.0, 0.6, "bfloat16"), (1.0, 4.5, "float32"), (1.0, 1.0, "float32")]
)
def test_the_faster_one_goes_on(float32, bfloat16, chosen):
    loop = Loop(float32=float32, bfloat16=bfloat16)
    assert loop.train(20) == chosen
    assert {str(dtype) for dtype in loop.dtypes[12:]} == {f"torch.{chosen}"}
    assert (
        len(loop.lines) == 1 and f"training in {chosen}" in loop.lines[0] and f"{bfloat16:.3g} s in bf" in loop.lines[0]
    )


def test_a_processor_without_bfloat16_never_tries_it():
    loop = Loop(capable=False, float32=1.0, bfloat16=1.0)
    assert loop.train(15) == "float32" and set(loop.dtypes) == {torch.float32}
    assert "no bfloat16 arithmetic" in loop.lines[0]


def test_a_word_forces_it():
    loop = Loop("bfloat16", capable=False, float32=1.0, bfloat16=9.0)
    assert loop.train(15) == "bfloat16" and set(loop.dtypes) == {torch.bfloat16}


def test_a_resumed_run_keeps_the_choice_of_its_checkpoint():
    loop = Loop(float32=1.0, bfloat16=0.5)
    loop.message_hub.update_info("precision", "float32")
    loop.iter = 100
    assert loop.train(15) == "float32" and set(loop.dtypes) == {torch.float32}
    checkpoint: dict = {"meta": {}}
    loop.hook.before_save_checkpoint(loop, checkpoint)
    assert checkpoint["meta"]["precision"] == "float32"


def test_a_wrong_word_is_refused():
    with pytest.raises(ValueError, match="got 'fp8', allowed are 'auto' and 'bfloat16'"):
        ChoosePrecision("fp8")
    if torch.cuda.is_available():
        return  # it takes float16
    with pytest.raises(UserError, match="--amp: got 'float16', allowed on a CPU are auto, bfloat16"):
        apis.train(apis.load_config("o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"), amp="float16")


def test_the_processor_is_asked():
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    if "avx2" not in flags or "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("no x86 processor that says what it can, or one that is not to use it")
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        assert has_fast_bfloat16()
    if not {"avx512f", "avx_ne_convert"} & set(flags):
        assert not has_fast_bfloat16()
