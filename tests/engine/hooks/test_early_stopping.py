"""Training ends when the validation has not improved for a number of epochs, also after a resume."""

import shutil
from pathlib import Path

import pytest

from efftasks.structures.errors import UserError


def epochs_done(folder: Path) -> int:
    return max(int(path.stem[6:]) for path in folder.glob("epoch_*.pth"))


def train(toy, folder, scores, patience, epochs=8, **options):
    hook = dict(type="EarlyStopping", patience=patience)
    toy.make_runner(folder, epochs=epochs, scores=list(scores), hooks=(hook,), **options).train()
    return epochs_done(folder)


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.1, 0.3, 0.2, 0.2, 0.4, 0.5], 2, 4),
        ([0.1, 0.3, 0.2, 0.4, 0.3, 0.3, 0.9], 2, 6),
        ([0.1] * 8, 3, 4),  # equal is not better
        ([float("nan")] * 8, 2, 3),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 1, 8),
    ],
)
def test_it_ends_after_as_many_epochs_without_a_better_score(toy, tmp_path, scores, patience, expected):
    assert train(toy, tmp_path, scores, patience) == expected


def test_patience_counts_epochs_where_not_each_is_validated(toy, tmp_path):
    loop = dict(by_epoch=True, max_epochs=12, val_interval=3)
    assert train(toy, tmp_path, [0.5, 0.4, 0.3, 0.2], patience=4, train_cfg=loop) == 9  # two validations


def test_a_resumed_run_counts_on(toy, tmp_path):
    scores = [0.1, 0.3, 0.2, 0.2, 0.2, 0.4, 0.5, 0.6]
    assert train(toy, tmp_path / "straight", scores, 3) == 5
    (tmp_path / "resumed").mkdir()
    for name in ("epoch_3.pth", "best.pth"):
        shutil.copy(tmp_path / "straight" / name, tmp_path / "resumed")
    # Epoch 3 is saved before it is validated, and the resumed run repeats that.
    assert train(toy, tmp_path / "resumed", scores[2:], 3, resume=True) == 5


def test_without_a_validation_or_a_metric_it_is_refused(toy, tmp_path):
    with pytest.raises(UserError, match="no validation"):
        nothing = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
        train(toy, tmp_path / "a", [], 2, **nothing)
    with pytest.raises(UserError, match="save_best is None"):
        train(toy, tmp_path / "b", [], 2, default_hooks=dict(checkpoint=dict(type="SafeCheckpointHook")))
