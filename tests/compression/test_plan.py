"""What a checkpoint keeps of compression, and how it is read back."""

from __future__ import annotations

import json
from typing import Any

import efftasks.compat  # noqa: F401

# isort: split
import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from efftasks.compression.building import build_model
from efftasks.compression.plan import CompressionPlan, Step, architecture_digest, plan_of
from efftasks.compression.transform import called_modules
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError

PLAN = CompressionPlan("0" * 64, (Step("LowRank", {"ranks": {"a": 2}}), Step("LowRank", {"ranks": {}})))


class Dense(nn.Module):
    """Three layers in a row."""

    def __init__(self, width: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, width), nn.Linear(width, width), nn.Linear(width, classes)


class Reader(nn.Module):
    """Multiplies by the weight of a part itself."""

    reads_parts = ("inner.0",)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


def test_a_round_trip_through_json() -> None:
    data = json.loads(json.dumps(PLAN.as_data()))
    assert CompressionPlan.of_data(data, "x.pth") == PLAN
    assert plan_of(dict(meta=dict(compression_plan=data)), "x.pth") == PLAN


@pytest.mark.parametrize("checkpoint", [{}, {"meta": None}, {"meta": {}}, {"meta": {"compression_plan": None}}])
def test_a_dense_checkpoint_has_none(checkpoint: dict[str, Any]) -> None:
    assert plan_of(checkpoint, "x.pth") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "version: got 'list'"),
        (dict(PLAN.as_data(), version=2), "version: got 2, expected a plan of version 1"),
        (dict(version=1, steps=[]), "expected the digest 'dense'"),
        (dict(version=1, dense="0", steps="LowRank"), "the list 'steps'"),
        (dict(version=1, dense="0", steps=["LowRank"]), r"steps\[0\]: got 'LowRank'"),
        (dict(version=1, dense="0", steps=[dict(type="LowRank", plan={}), dict(type="LowRank")]), r"steps\[1\]"),
    ],
)
def test_a_broken_plan_is_named(data: Any, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        plan_of(dict(meta=dict(compression_plan=data)), "x.pth")
    assert str(error.value).startswith("x.pth: meta.compression_plan: ")


def test_the_digest_is_of_names_and_shapes_whatever_the_classes() -> None:
    assert architecture_digest(Dense()) == architecture_digest(Dense(classes=9))
    assert architecture_digest(Dense()) != architecture_digest(Dense(width=16))
    renamed = Dense()
    renamed.c = renamed.b
    del renamed.b
    assert architecture_digest(renamed) != architecture_digest(Dense())
    other = Dense()
    other.a.weight.data.zero_()
    assert architecture_digest(other) == architecture_digest(Dense())


def test_what_is_read_is_not_only_called() -> None:
    names = {name for name, _ in called_modules(nn.Sequential(Reader(), nn.Linear(2, 2)))}
    assert names == {"0", "0.inner", "0.inner.1", "1"}


def test_steps_are_in_the_order_of_the_config_and_replay_to_the_same_layers() -> None:
    MODELS.register_module(name="DenseOfTest", module=Dense, force=True)
    steps = [dict(type="LowRank", layers=["a"], ratio=0.5), dict(type="LowRank", layers=["a.*", "b"], ratio=0.9)]
    with DefaultScope.overwrite_default_scope("efftasks"):
        built = build_model(dict(type="DenseOfTest"), steps)
        assert built.plan is not None
        # 6 x 8: half of 48 weights are rank 24 / 14 = 1.7; then 0.9 of 8 x 8 are 57.6 / 16 = 3.6. The pair of the
        # first step (6 x 1, 1 x 8) would not become smaller.
        assert [step.plan for step in built.plan.steps] == [{"ranks": {"a": 1}}, {"ranks": {"b": 3}}]
        again = build_model(dict(type="DenseOfTest"), [dict(type="NotLookedAt")], plan=built.plan)
        assert again.plan == built.plan
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (built.model, again.model)]
        assert shapes[0] == shapes[1]
        unknown = CompressionPlan(built.plan.dense, (Step("NoSuchStep", {}),))
        with pytest.raises(UserError, match=r"best\.pth: its compression plan has a step 'NoSuchStep'"):
            build_model(dict(type="DenseOfTest"), plan=unknown, source="best.pth")
        torch.manual_seed(0)
        assert build_model(dict(type="DenseOfTest")).plan is None
