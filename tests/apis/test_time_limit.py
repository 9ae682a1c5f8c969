"""What another number of epochs changes in a training, and configs that cannot be trained by the clock."""

import pytest

from efftasks.apis import load_config
from efftasks.apis.batch_size import set_batch_size
from efftasks.apis.time_limit import TimeLimit
from efftasks.structures.errors import UserError

SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
SEGMENTS = "pidnet-s_pidnet_1xb8-100e_custom-512"


def schedules(cfg, batch=None):
    make = TimeLimit(1.0).prepare(cfg)
    if batch is not None:
        set_batch_size(cfg, batch)
    return make(cfg)._schedule


def test_rates_and_hooks_are_those_of_a_config_of_as_many_epochs():
    schedule = schedules(load_config(SHAPES, {"freeze": dict(parts=("neck",), until=0.5)}))
    for epochs, until in ((40, (9, 20)), (6, (20, 3))):
        expected = load_config(SHAPES, {"train_cfg.max_epochs": epochs}).param_scheduler
        new = schedule(epochs)
        assert new.epochs == epochs and new.param_scheduler == [dict(scheduler) for scheduler in expected]
        assert new.hooks == (("Freeze", "until", *until),)
    assert schedule(6).hooks == ()


def test_the_batch_size_stays_in_the_schedule():
    options = {"classes": ("a", "b"), "param_scheduler.decay.eta_min": 1e-4}
    cfg = load_config(SEGMENTS, options)
    old = [dict(scheduler) for scheduler in cfg.param_scheduler]
    schedule = schedules(cfg, batch=32)
    expected = load_config(SEGMENTS, {**options, "train_cfg.max_epochs": 30}).param_scheduler
    new = schedule(30).param_scheduler
    assert [s.get("T_max") or s.get("end") for s in new if s.get("by_epoch", True)] == [
        s.get("T_max") or s.get("end") for s in expected if s.get("by_epoch", True)
    ]
    ends = {name: [s["eta_min"] for s in part if s.get("eta_min")] for name, part in (("old", old), ("new", new))}
    assert ends["new"] == [pytest.approx(4 * end) for end in ends["old"]] != []  # four times the images, with SGD


@pytest.mark.parametrize(
    ("minutes", "options", "message"),
    [
        (0.0, {}, "got 0, expected a number above 0"),
        (float("inf"), {}, "got inf, expected a number above 0"),
        (float("nan"), {}, "got nan, expected a number above 0"),
        (1.0, {"train_cfg": dict(type="IterBasedTrainLoop", max_iters=10)}, "train_cfg.type is IterBasedTrainLoop"),
        (1.0, {"launcher": "pytorch"}, "it plans in one process"),
    ],
)
def test_refused(minutes, options, message):
    cfg = load_config(SHAPES)
    for key, value in options.items():
        cfg[key] = value
    with pytest.raises(UserError, match=message):
        TimeLimit(minutes).prepare(cfg)
