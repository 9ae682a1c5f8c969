"""Frozen parts keep weights and statistics, the rest learns, and a resumed training is the uninterrupted one."""

import shutil

import pytest
import torch

from efftasks.apis import load_config
from efftasks.checkpoints.files import read_checkpoint
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def equal(a: dict, b: dict, prefix: str) -> list[bool]:
    return [torch.equal(a[name], b[name]) for name in a if name.startswith(prefix) and "num_batches" not in name]


def train(toy, folder, **hook):
    record = toy.Record()
    runner = toy.make_runner(folder, hooks=(dict(type="Freeze", **hook), record))
    start = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    return runner, start, record.states


def test_weights_and_statistics_of_frozen_parts_stay_while_others_learn(toy, tmp_path):
    runner, start, states = train(toy, tmp_path, parts=["stem", "norm"])
    for prefix in ("stem.", "norm."):
        assert all(equal(start, states[-1], prefix))
    assert not any(equal(start, states[0], "mid.")) and not any(equal(start, states[-1], "out."))
    average = read_checkpoint(tmp_path / "epoch_4.pth")["state_dict"]
    assert all(equal(start, average, "norm.")) and not any(equal(start, average, "out."))
    assert all(parameter.requires_grad for parameter in runner.model.parameters())


def test_parts_learn_again_from_the_epoch_that_is_given(toy, tmp_path):
    _, start, states = train(toy, tmp_path, parts=["stem", "norm"], until=2)
    steps = 4  # of an epoch
    assert all(equal(start, states[2 * steps - 1], "stem.")) and all(equal(start, states[2 * steps - 1], "norm."))
    assert not any(equal(start, states[2 * steps], "stem.")) and not any(
        equal(start, states[2 * steps], "norm.running")
    )


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_run(toy, tmp_path, epoch):
    train(toy, tmp_path / "straight", parts=["stem", "norm"], until=2)
    (tmp_path / "resumed").mkdir()
    shutil.copy(tmp_path / f"straight/epoch_{epoch}.pth", tmp_path / "resumed")
    hooks = (dict(type="Freeze", parts=["stem", "norm"], until=2),)
    toy.make_runner(tmp_path / "resumed", hooks=hooks, resume=True, init_seed=7).train()
    straight, resumed = (read_checkpoint(tmp_path / name / "epoch_4.pth") for name in ("straight", "resumed"))
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(resumed[part][key], value) for key, value in straight[part].items())


def test_an_unknown_part_and_a_model_that_cannot_learn_are_refused(toy, tmp_path):
    with pytest.raises(UserError, match=r"freeze: the model has no part 'stam'; did you mean 'stem'\?"):
        train(toy, tmp_path / "a", parts=["stam"])
    with pytest.raises(UserError, match="freeze: stem, norm, drop, mid, out is all that learns"):
        train(toy, tmp_path / "b", parts=["stem", "norm", "drop", "mid", "out"])


@pytest.mark.parametrize(
    ("value", "parts", "until"),
    [
        ("backbone", ["backbone"], None),
        (("backbone.stem", "neck"), ["backbone.stem", "neck"], None),
        (dict(parts="backbone", until=0.5), ["backbone"], 9),
        (dict(parts=("neck",), until=4), ["neck"], 4),
        (dict(parts=("neck",), until="warmup_epochs"), ["neck"], 1),
    ],
)
def test_a_config_states_it_at_the_top(value, parts, until):
    cfg = load_config(CONFIG, {"freeze": value})
    hook = cfg.default_hooks["freeze"]
    assert (hook.type, list(hook.parts), hook.get("until")) == ("Freeze", parts, until)
    again = load_config(cfg, {"max_epochs": 36}).default_hooks["freeze"]
    assert again.get("until") == (18 if until == 9 else until)
    assert "freeze" not in load_config(cfg, {"freeze": None}).default_hooks


@pytest.mark.parametrize("value", [1, ["backbone", 2], dict(until=3), dict(parts="neck", from_epoch=1)])
def test_other_forms_are_refused(value):
    with pytest.raises(UserError, match="freeze: got"):
        load_config(CONFIG, {"freeze": value})
