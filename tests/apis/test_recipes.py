"""The recipes of compression: all steps of each are read and built."""

from __future__ import annotations

from typing import Any

import pytest

from efftasks import apis
from efftasks.apis.compression_checks import check_chain
from efftasks.apis.compression_steps import read_chain

RECIPES = [name for name, path in apis.shipped_configs().items() if path.parent.name == "recipes"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_of_a_recipe_can_be_built(name: str) -> None:
    options: dict[str, Any] = {"classes": ["a", "b", "c"]} if "_custom-" in name or "camvid" in name else {}
    chain = read_chain(apis.load_config(name, {"image_size": 128, **options}))
    assert [step.name for step in chain.steps] == ["dense", "prune", "distil", "int8"]
    assert [step.trains for step in chain.steps] == [True, False, True, False]
    assert chain.benchmark.threads == 1
    check_chain(chain)


def test_there_is_one_for_each_kind_of_network() -> None:
    assert {name.split("_")[0] for name in RECIPES} == {"o2o-n", "dfine-n", "deimv2-pico", "fpnlite-n", "o2opose-n"}
