"""The recipes of compression: all steps of each are read and built."""

from __future__ import annotations

from typing import Any

import pytest

from efftasks import apis
from efftasks.apis.compression_checks import check_chain
from efftasks.apis.compression_steps import KEY, read_chain
from efftasks.linking.linked import LinkedConfig

FOLDER = apis.config_folder() / "compress" / "recipes"
ALONE = {"prune": [True, True], "int8": [True, False]}  # whether each step trains


def load(name: str) -> LinkedConfig:
    options: dict[str, Any] = {"classes": ["a", "b", "c"]} if "_custom-" in name or "camvid" in name else {}
    return apis.load_config(name, {"image_size": 128, **options})


CHAINS = sorted(path.stem for path in FOLDER.glob("*.py") if KEY in path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_every_step_can_be_built(name: str) -> None:
    check_chain(read_chain(load(name)))


@pytest.mark.parametrize("name", CHAINS)
def test_steps_are_what_the_name_says(name: str) -> None:
    steps = read_chain(load(name)).steps
    change = name.rpartition("_")[2]
    expected = ["dense", "prune", "distil", "int8"] if change == "all" else ["dense", change]
    assert [step.name for step in steps] == expected
    assert [step.trains for step in steps] == ALONE.get(change, [True, False, True, False])
    assert all(part.precision == ("int8" if step.name == "int8" else None) for step in steps for part in step.exports)


def test_there_is_one_with_all_steps_for_each_kind_of_network() -> None:
    methods = {name.split("_")[0] for name in CHAINS if name.endswith("_all")}
    assert methods == {"o2o-n", "dfine-n", "deimv2-pico", "fpnlite-n", "o2opose-n"}
