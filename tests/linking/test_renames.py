"""Configs that were written, or dumped, before an argument was renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from efftasks import apis
from efftasks.structures.errors import UserError

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "dumped_with_custom_hooks.py"
CUSTOM = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
MULTI = "o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128"


def test_a_dumped_config_of_before_has_the_names_of_now() -> None:
    assert "helper_assigner=" in FIXTURE.read_text(encoding="utf-8")
    head = apis.load_config(FIXTURE).model.head
    assert "helper_assigner" not in head
    assert head.one_to_many_assigner == dict(alpha=0.5, beta=6.0, topk=10, type="TaskAlignedAssigner")


def renamed(folder: Path, name: str, text: str) -> Any:
    path = folder / "mine.py"
    path.write_text(f"_base_ = [{str(apis.config_path(name))!r}]\n{text}", encoding="utf-8")
    return apis.load_config(path, {"classes": ["ant"]}).model.head


def test_an_old_name_works_where_the_base_does_not_state_the_new_one(tmp_path: Path) -> None:
    assert renamed(tmp_path, CUSTOM, "model = dict(head=dict(helper_weight=(0.9, 0.2)))").one_to_many_weight == (
        0.9,
        0.2,
    )
    options = {"classes": ["ant"], "model.head.helper_weight": (0.7, 0.3)}
    assert apis.load_config(CUSTOM, options).model.head.one_to_many_weight == (0.7, 0.3)


def test_both_names_are_an_error_that_names_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model\.head\.helper_assigner: was renamed to one_to_many_assigner, which"):
        renamed(tmp_path, CUSTOM, "model = dict(head=dict(helper_assigner=dict(topk=5)))")
    with pytest.raises(UserError, match=r"^model\.head\.parts\.keypoints\.ranks: was renamed to affects_score"):
        apis.load_config(MULTI, {"model.head.parts.keypoints.ranks": True})
