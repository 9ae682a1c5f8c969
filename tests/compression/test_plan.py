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
from efftasks.compression.plan import CompressionPlan, Step, architecture_digest, plain, plan_of, undecided
from efftasks.compression.transform import called_modules
from efftasks.registry import MODELS
from efftasks.structures.errors import UserError

A, B = dict(type="LowRank", layers=["a"]), dict(type="LowRank", layers=["b"], ratio=0.3)
PLAN = CompressionPlan("0" * 64, (Step("LowRank", {"ranks": {"a": 2}}, A), Step("LowRank", {"ranks": {}})))


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
        (dict(version=1, dense="0", steps=[dict(type="A", plan={}, config="B")]), r"steps\[0\].config: got 'B'"),
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
        assert [step.config for step in built.plan.steps] == steps
        again = build_model(dict(type="DenseOfTest"), plan=built.plan)
        assert again.plan == built.plan
        shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (built.model, again.model)]
        assert shapes[0] == shapes[1]
        unknown = CompressionPlan(built.plan.dense, (Step("NoSuchStep", {}),))
        with pytest.raises(UserError, match=r"best\.pth: its compression plan has a step 'NoSuchStep'"):
            build_model(dict(type="DenseOfTest"), plan=unknown, source="best.pth")
        torch.manual_seed(0)
        assert build_model(dict(type="DenseOfTest")).plan is None


def test_a_plan_without_configs_is_of_an_earlier_version() -> None:
    data = dict(version=1, dense="0", steps=[dict(type="LowRank", plan={"ranks": {}})])
    plan = CompressionPlan.of_data(data, "x.pth")
    assert plan.steps[0].config is None
    assert undecided(plan, [B], "x.pth") == [] and undecided(plan, [B, A], "x.pth") == [A]


def test_equal_configs_are_equal_as_plain_data() -> None:
    one = dict(type=CompressionPlan, layers=("a", "b"), latency=dict(ms=3, _scope_="x"))
    assert plain(one) == {"type": "CompressionPlan", "layers": ["a", "b"], "latency": {"ms": 3}}
    assert json.loads(json.dumps(plain(one))) == plain(one)


@pytest.mark.parametrize(
    ("done", "listed", "left"),
    [
        ([], [A, B], [A, B]),
        ([A], [A, B], [B]),
        ([A, B], [A, B], []),
        ([A, B], [], []),
        ([A], [dict(A, type="efftasks.LowRank"), B], [B]),
        ([A], [dict(A, layers=("a",)), B], [B]),
    ],
)
def test_the_rest_of_the_chain_is_decided(done: list[Any], listed: list[Any], left: list[Any]) -> None:
    plan = CompressionPlan("0", tuple(Step(config["type"], {}, config) for config in done)) if done else None
    assert list(undecided(plan, listed, "x.pth")) == left


@pytest.mark.parametrize("listed", [[B], [dict(A, ratio=0.4)], [dict(A, type="Prune")], [B, A]])
def test_a_chain_that_begins_otherwise_is_refused(listed: list[Any]) -> None:
    plan = CompressionPlan("0", (Step("LowRank", {}, A),))
    with pytest.raises(
        UserError, match=r"x\.pth: step 1 of its compression plan is .*list the steps of the checkpoint"
    ):
        undecided(plan, listed, "x.pth")


def test_a_config_that_lists_fewer_steps_than_the_checkpoint_is_refused() -> None:
    plan = CompressionPlan("0", tuple(Step(str(config["type"]), {}, config) for config in (A, B)))
    with pytest.raises(
        UserError, match=r"x\.pth: its compression plan has 2 steps, but model_transforms has 1; list all"
    ):
        undecided(plan, [A], "x.pth")


def test_a_further_step_decides_from_the_weights_of_the_compressed_model() -> None:
    MODELS.register_module(name="DenseOfTest", module=Dense, force=True)
    first, second = dict(type="LowRank", layers=["a"], ratio=0.5), dict(type="LowRank", layers=["b"], energy=0.999)
    with DefaultScope.overwrite_default_scope("efftasks"):
        once = build_model(dict(type="DenseOfTest"), [first])
        with torch.no_grad():
            once.model.b.weight.copy_(torch.randn(8, 1) @ torch.randn(1, 8))  # rank 1
        twice = build_model(
            dict(type="DenseOfTest"),
            [first, second],
            once.plan,
            lambda model: model.load_state_dict(once.model.state_dict()),
        )
    assert twice.plan is not None and once.plan is not None
    assert twice.plan.steps[:1] == once.plan.steps and twice.plan.dense == once.plan.dense
    assert twice.plan.steps[1].plan == {"ranks": {"b": 1}}
    torch.testing.assert_close(twice.model.a.expand.weight, once.model.a.expand.weight)
