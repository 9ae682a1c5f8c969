"""Macro scaling: the published rule, what it does to a config, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efftasks import apis
from efftasks.bench.complexity import count_complexity
from efftasks.cli.main import main
from efftasks.linking.scaling import compound_scale, scale_model, scaled_size
from efftasks.structures.errors import UserError

NANO = "o2o-n_mobilenetv4-conv-s_8xb16-300e_coco-640"
SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def test_the_rule_of_efficientnet() -> None:
    assert compound_scale(0) == (1, 1, 1)
    found = compound_scale(2)
    assert found == pytest.approx((1.44, 1.21, 1.3225))  # squares of 1.2, 1.1, 1.15
    assert pytest.approx(1.92, abs=0.01) == 1.2 * 1.1**2 * 1.15**2  # "about 2" (section 3.3)
    assert compound_scale(3, gamma=1).resolution == 1
    with pytest.raises(ValueError, match=r"scale\.beta: got 0\.9"):
        compound_scale(1, beta=0.9)


def test_what_becomes_of_a_model_and_a_size() -> None:
    model = dict(backbone=dict(type="X", width=0.5), neck=dict(type="Y", out_channels=(64, 100), depth=2))
    changes = scale_model(model, compound_scale(2))
    assert changes["backbone"] == dict(width=pytest.approx(0.605), depth=pytest.approx(1.44))
    assert changes["neck"] == dict(out_channels=(80, 120), depth=3)  # 77.4, 121, 2.88
    assert scale_model(dict(backbone=dict(type="X")), compound_scale(1)).keys() == {"backbone"}
    assert scaled_size((480, 640), compound_scale(1)) == (544, 736)  # 552 and 736, to multiples of 32


def test_a_config_takes_part_by_one_line() -> None:
    plain, scaled = apis.load_config(SHAPES), apis.load_config(SHAPES, {"scale": dict(phi=2.0)})
    assert "scale" not in scaled  # a dumped config is not scaled twice
    assert scaled.image_size == (160, 160)
    text, before = scaled.pretty_text, plain.pretty_text
    assert before.count("128") > 5 and "(128, 128)" not in text.replace("\n", "")
    assert apis.input_size(scaled) == (160, 160)
    assert scaled.model.backbone.width == pytest.approx(1.21) and scaled.model.neck.depth == 1


def test_flops_grow_as_the_rule_says() -> None:
    costs = []
    for phi in (0.0, 3.0):
        cfg = apis.load_config(SHAPES, {"scale": dict(phi=phi)})
        model = apis.fuse(apis.build(cfg))
        costs.append(count_complexity(model, model.infer, apis.input_size(cfg)).gflops)
    # 1.92 a step for what grows in all three; the stem and the stages without repeats do not grow in depth.
    assert 1.5**3 < costs[1] / costs[0] < 2.0**3


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (dict(alpha=2.0), "scale: got alpha, expected phi"),
        (dict(phi=1.0, delta=1.0), "scale: got phi, delta, expected phi, and at most alpha, beta, gamma"),
        (dict(phi=1.0, gamma=0.5), r"scale\.gamma: got 0\.5, allowed from 1"),
    ],
)
def test_wrong_rules(scale: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        apis.load_config(NANO, {"scale": scale})


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", SHAPES, "--phi", "0", "1", "--gamma", "1", "--out", str(tmp_path)]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[1:4] for line in lines[1:]] == [["1.00", "1.00", "128x128"], ["1.20", "1.10", "128x128"]]
    cfg = apis.load_config(tmp_path / f"{SHAPES}_phi1.py")
    assert cfg.model.backbone.depth == pytest.approx(1.2) and cfg.image_size == (128, 128)
    assert json.dumps(cfg.model.neck.out_channels) == "[72, 144, 208]"
