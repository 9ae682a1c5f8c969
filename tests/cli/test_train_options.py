"""Options of `train`: what they become in a config, and those that make no sense."""

import argparse

import pytest

from efftasks.cli.train_options import add_training, check_no_training, overrides_of, time_limit_of
from efftasks.config import config_path, load_config
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_training(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("--epochs", "5"), {"train_cfg.max_epochs": 5}),
        (("--patience", "8"), {"default_hooks.early_stopping": dict(type="EarlyStopping", patience=8)}),
        (("--freeze", "backbone", "neck"), {"freeze": dict(_delete_=True, parts=["backbone", "neck"])}),
        (
            ("--freeze", "backbone", "--freeze-until", "3"),
            {"freeze": dict(_delete_=True, parts=["backbone"], until=3)},
        ),
        (("--batch-size", "auto", "--keep-lr"), {}),
    ],
)
def test_overrides(words, options):
    assert overrides_of(parsed(*words)) == options


@pytest.mark.parametrize(
    "line", ["", "freeze = None", "freeze = ('backbone',)", "freeze = dict(parts='backbone', until=0.3)"]
)
@pytest.mark.parametrize("until", [None, 2])
def test_frozen_parts_replace_those_of_the_config(tmp_path, line, until):
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = {str(config_path(CONFIG))!r}\n{line}\n")
    words = ("--freeze", "neck", *(() if until is None else ("--freeze-until", str(until))))
    cfg = load_config(path, overrides_of(parsed(*words)))
    assert cfg.default_hooks["freeze"] == dict(type="Freeze", parts=["neck"], until=until)


def test_a_time_has_the_epochs_as_its_limit():
    limit = time_limit_of(parsed("--max-minutes", "2.5", "--epochs", "7"), started=3.0)
    assert limit is not None and (limit.minutes, limit.most_epochs, limit.started) == (2.5, 7, 3.0)
    assert time_limit_of(parsed("--epochs", "7"), 0.0) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--patience", "0"), "--patience: got 0"),
        (("--freeze-until", "2"), "--freeze-until: it says until when"),
        (("--freeze", "neck", "--freeze-until", "0"), "--freeze-until: got 0"),
        (("--keep-lr",), "--keep-lr: learning rates change"),
        (("--batch-size", "0"), "--batch-size: got '0'"),
        (("--batch-size", "big"), "--batch-size: got 'big'"),
    ],
)
def test_refused(words, message):
    with pytest.raises(UserError, match=message):
        overrides_of(parsed(*words))


@pytest.mark.parametrize(
    "words", [("--max-minutes", "3"), ("--patience", "3"), ("--freeze", "neck"), ("--batch-size", "4")]
)
def test_a_config_of_steps_takes_none(words):
    check_no_training(parsed())
    with pytest.raises(UserError, match=f"{words[0]}: it is for one training"):
        check_no_training(parsed(*words))
