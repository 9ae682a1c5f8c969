"""Training that starts from a checkpoint of other classes: the runner, its average, and compressed starts."""

from pathlib import Path

import pytest
import torch
from torch import nn

from efftasks.apis import build, load_config
from efftasks.apis.training import build_runner
from efftasks.checkpoints.class_rows import ClassCarry
from efftasks.checkpoints.files import read_checkpoint
from efftasks.compression.plan import CompressionPlan, Step
from efftasks.engine.runner import EffRunner
from efftasks.engine.starting import check_rows_known
from efftasks.models.layers.prediction import outputs_of
from efftasks.structures.errors import UserError

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
OLD = ("circle", "square", "triangle", "star", "ring", "cross")
LOW_RANK = dict(type="LowRank", layers=["neck.*"])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the six shapes, whose rows of a class are all its index."""
    model = build(load_config(CONFIG, small(OLD)))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for name in class_layers(state):
        state[name][:] = torch.arange(6.0).reshape(-1, *[1] * (state[name].ndim - 1))
    path = tmp_path_factory.mktemp("published") / "six.pth"
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=list(OLD)))), path)
    return path


def small(classes: tuple[str, ...], **options: object) -> dict[str, object]:
    return {
        "classes": classes,
        "model.backbone.width": 0.25,
        "model.neck.out_channels": (16, 16, 16),
        "vis_backends": [dict(type="LocalVisBackend")],
        **options,
    }


def class_layers(state: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in state if ".classes." in name and name.split(".")[4] == "4"]


def started(shapes: Path, tmp_path: Path, published: Path, classes: tuple[str, ...], **options: object) -> EffRunner:
    """A runner that has loaded the checkpoint, as training begins."""
    cfg = load_config(
        CONFIG, small(classes, data_root=f"{shapes}/", load_from=str(published), log_level="INFO", **options)
    )
    cfg.work_dir = str(tmp_path)
    runner = build_runner(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.call_hook("before_run")
    runner.load_or_resume()
    return runner


@pytest.mark.parametrize("transforms", [(), (LOW_RANK,)], ids=["dense", "compressed at the start"])
def test_six_classes_in_another_order_take_their_rows_along(shapes, tmp_path, published, transforms):
    order = ("cross", "ring", "circle", "star", "square", "triangle")
    runner = started(shapes, tmp_path, published, order, model_transforms=list(transforms))
    average = next(hook.ema_model.module for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    for state in (runner.model.state_dict(), average.state_dict()):
        names = class_layers(state)
        assert len(names) == 12  # weights and biases of three levels of both branches
        for name in names:
            assert state[name].reshape(6, -1)[:, 0].tolist() == [5, 4, 0, 3, 1, 2]
    log = next(tmp_path.rglob("*.log")).read_text()
    assert "classes: all 6 are carried, in another order" in log


def test_a_fresh_head_is_the_one_that_was_built(shapes, tmp_path, published):
    order = ("ring", "star")
    runner = started(shapes, tmp_path, published, order, carry_classes=False)
    state = runner.model.state_dict()
    biases = [state[name] for name in class_layers(state) if name.endswith("bias")]
    assert all(bias[0] == bias[1] < 0 for bias in biases)  # the prior, which no row of the file is


def test_what_is_resumed_is_not_touched(shapes, tmp_path, published):
    data = read_checkpoint(published)
    runner = started(shapes, tmp_path / "first", published, OLD)
    runner._resume = True
    assert runner._with_classes(runner.model, data, "x").weights is data["state_dict"]


def test_resuming_with_classes_in_another_order_is_refused(shapes, tmp_path, published):
    runner = started(shapes, tmp_path / "first", published, OLD[::-1])
    runner._resume = True
    with pytest.raises(UserError, match="resumed from it with other classes or in another order"):
        runner._with_classes(runner.model, read_checkpoint(published), "x")


@pytest.mark.parametrize(("names", "refused"), [(OLD, False), (OLD[::-1], True)])
def test_quantization_aware_checkpoints_keep_their_classes(names, refused):
    plan = CompressionPlan("digest", (Step("QuantizeAware", {}),))
    carry = ClassCarry({"classes": names})
    if not refused:
        check_rows_known(plan, {"classes": list(OLD)}, carry, "qat.pth")
        return
    with pytest.raises(UserError, match="quantization-aware training, whose classes cannot be changed"):
        check_rows_known(plan, {"classes": list(OLD)}, carry, "qat.pth")
    check_rows_known(CompressionPlan("digest", ()), {"classes": list(OLD)}, carry, "pruned.pth")


def test_a_prediction_layer_of_low_rank_has_its_rows_in_the_second_of_two():
    branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(2, 3, 1)))
    assert outputs_of(branch, "classes.0") == ["classes.0.1.1.weight", "classes.0.1.1.bias"]
    assert outputs_of(nn.Identity(), "classes.0") == []
