"""The chosen batch size, on memory and speed that are formulas."""

import pytest

from efftasks.apis import load_config
from efftasks.apis.batch_size import fitting_batch
from efftasks.engine.batch_fit import fit_batch
from efftasks.structures.errors import UserError

GIB = 2**30
CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


class Machine:
    """Images need 0.1 GiB each, and the model 0.5; a step takes a fixed time and one for each image."""

    def __init__(self, fixed: float = 0.0, fails_from: int = 10**9) -> None:
        self.fixed, self.fails_from = fixed, fails_from
        self.used = GIB
        self.sizes: list[int] = []

    def step(self, size: int) -> float:
        self.sizes.append(size)
        if size >= self.fails_from:
            raise MemoryError
        self.used = max(self.used, int((1.5 + 0.1 * size) * GIB))
        return self.fixed + 0.01 * size

    def fit(self, batch: int, free: float, images: int = 10_000, may_grow: bool = False):
        return fit_batch(self.step, lambda: self.used, batch, int(free * GIB), images, may_grow)


def test_the_batch_of_the_config_is_kept_where_it_fits():
    machine = Machine()
    fit = machine.fit(16, free=8)
    assert (fit.size, fit.steps, machine.sizes) == (16, 1, [1, 2, 4, 8, 16])
    assert fit.reason == "2.10 GiB for 16 images, 8.00 GiB were free"


@pytest.mark.parametrize(("free", "size", "steps"), [(2.5, 8, 2), (1.5, 4, 4), (0.9, 1, 16)])
def test_a_smaller_one_has_several_batches_in_an_update(free, size, steps):
    machine = Machine()
    fit = machine.fit(16, free)
    assert (fit.size, fit.steps) == (size, steps)
    assert max(machine.sizes) <= size  # none that was expected not to fit has been tried


def test_not_even_one_image_is_refused():
    with pytest.raises(UserError, match=r"one image needs 0\.60 GiB, 0\.50 GiB are free"):
        Machine().fit(16, 0.5)


def test_a_gpu_takes_larger_ones_while_they_are_faster():
    assert Machine(fixed=0.0).fit(16, 100, may_grow=True).size == 16
    assert Machine(fixed=0.3).fit(16, 100, may_grow=True).size == 256  # 0.0112 s an image; 512 gain 5 percent
    assert Machine(fixed=0.3).fit(16, 10, may_grow=True).size == 64  # 6.9 of 7 GiB
    assert Machine(fixed=0.3).fit(16, 100, images=1000, may_grow=True).size == 32  # 31 steps an epoch
    assert Machine(fixed=0.3, fails_from=64).fit(16, 100, may_grow=True).size == 32  # out of memory all the same


@pytest.mark.slow
@pytest.mark.parametrize("batch", [4, 10, 32])  # of 16 images: several batches, one, and not even a full one
def test_a_real_training_is_measured(shapes, batch):
    options = {
        "data_root": f"{shapes}/",
        "model.backbone.width": 0.25,
        "model.neck.out_channels": (16, 16, 16),
        "train_dataloader.batch_size": batch,
    }
    fit = fitting_batch(load_config(CONFIG, options))
    assert (fit.size, fit.steps) == (batch, 1) and "GiB" in fit.reason
