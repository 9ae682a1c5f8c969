"""The file that says which compression steps are finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from efftasks.apis.compression_state import FILE, StepStates, fingerprint, measuring_digest
from efftasks.structures.errors import UserError


def test_a_fingerprint_changes_with_what_decides_a_checkpoint() -> None:
    config = dict(model=dict(a=1, b=(2, 3)), work_dir="x", linked=[1], quantization=dict(bits=8), log_level="INFO")
    prints = fingerprint(config, start="abc")
    assert prints.keys() == {"model", "start"}
    assert fingerprint(dict(config, model=dict(b=[2, 3], a=1), work_dir="y", linked=[]), start="abc") == prints
    assert fingerprint(dict(config, model=dict(a=1, b=(2, 4))), start="abc")["model"] != prints["model"]
    assert fingerprint(dict(config, quantization=dict(bits=7)), start="abc") == prints
    assert measuring_digest(dict(config, quantization=dict(bits=7))) != measuring_digest(config)
    assert measuring_digest(dict(config, model={})) == measuring_digest(config)


def test_states_survive_and_later_steps_are_forgotten(tmp_path: Path) -> None:
    states = StepStates(tmp_path, resume=False)
    assert states.changes("0_a", {"x": "1"}) is None and states.checkpoint("0_a") is None
    for folder in ("0_a", "1_b", "10_c"):
        states.begin(folder, {"x": "1"})
        states.finish(folder, "best.pth")
    again = StepStates(tmp_path, resume=True)
    assert again.changes("10_c", {"x": "1"}) == [] and again.checkpoint("10_c") == "best.pth"
    assert again.changes("1_b", {"x": "2", "y": "1"}) == ["x", "y"]
    again.begin("1_b", {"x": "2"})
    last = StepStates(tmp_path, resume=True)
    assert last.checkpoint("0_a") == "best.pth" and last.checkpoint("1_b") is None
    assert last.changes("1_b", {"x": "2"}) == [] and last.changes("10_c", {"x": "1"}) is None
    assert StepStates(tmp_path, resume=False).changes("0_a", {"x": "1"}) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "steps": {}}', '{"version": 1}'])
def test_a_file_that_is_something_else_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=rf"{FILE}: .*train without --resume"):
        StepStates(tmp_path, resume=True)
