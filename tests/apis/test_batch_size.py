"""Learning rates that follow the batch size, by the rule of the optimizer, and a measured fit."""

import pytest
from mmengine.config import Config

from efftasks.apis.batch_size import set_batch_size
from efftasks.linking.linked import LinkedConfig
from efftasks.structures.errors import UserError


def config(optimizer: dict, batch: int = 16, schedulers: tuple = (), **wrapper) -> LinkedConfig:
    return LinkedConfig.of(
        Config(
            dict(
                train_dataloader=dict(batch_size=batch),
                optim_wrapper=dict(optimizer=optimizer, **wrapper),
                param_scheduler=list(schedulers),
            )
        )
    )


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (dict(type="SGD", lr=0.01), dict(lr=0.04)),
        (dict(type="AdamW", lr=1e-4), dict(lr=2e-4)),
        (dict(type="MuonAdamW", lr=2e-3, muon_lr=0.16), dict(lr=4e-3, muon_lr=0.32)),
        (dict(type="MuonAdamW"), dict(lr=4e-3, muon_lr=0.04)),  # those that it has where the config states none
    ],
)
def test_four_times_the_batch(optimizer, expected):
    cfg = config(optimizer)
    sentence = set_batch_size(cfg, 64)
    assert cfg.train_dataloader.batch_size == 64
    assert {key: cfg.optim_wrapper.optimizer[key] for key in expected} == expected
    assert "batch size 64 instead of 16; learning rates times" in sentence


def test_rates_of_patterns_and_the_end_of_a_decay_follow_and_steps_are_fewer():
    schedulers = (
        dict(type="LinearLR", by_epoch=False, begin=0, end=500),
        dict(type="PolyLR", eta_min=1e-6, begin=0, end=60),
    )
    rules = dict(patterns={"backbone": dict(lr=1e-5), "norm": dict(weight_decay=0.0)})
    cfg = config(dict(type="AdamW", lr=1e-4), 16, schedulers, paramwise_cfg=rules)
    set_batch_size(cfg, 4)
    assert cfg.optim_wrapper.paramwise_cfg.patterns["backbone"]["lr"] == 5e-6
    assert cfg.param_scheduler[1].eta_min == 5e-7 and cfg.param_scheduler[1].end == 60
    assert (cfg.param_scheduler[0].begin, cfg.param_scheduler[0].end) == (0, 2000)


def test_accumulated_batches_count_and_rates_can_be_kept():
    cfg = config(dict(type="SGD", lr=0.01), accumulative_counts=2)
    assert "rates stay" in set_batch_size(cfg, 8, steps=4) and cfg.optim_wrapper.optimizer.lr == 0.01
    assert cfg.optim_wrapper.accumulative_counts == 4
    set_batch_size(cfg, 64, keep_lr=True)
    assert cfg.optim_wrapper.optimizer.lr == 0.01


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_what_is_no_number_of_images_is_refused(size):
    with pytest.raises(UserError, match="--batch-size: got"):
        set_batch_size(config(dict(type="SGD", lr=0.1)), size)
