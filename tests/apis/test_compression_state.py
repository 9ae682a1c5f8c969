"""The file that says which compression steps are finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from efftasks.apis.compression_state import FILE, Fingerprint, StepStates, fingerprint, measuring_digest
from efftasks.structures.errors import UserError


def test_a_fingerprint_changes_with_what_decides_a_checkpoint() -> None:
    config = dict(model=dict(a=1, b=(2, 3)), work_dir="x", linked=[1], quantization=dict(bits=8), log_level="INFO")
    prints = fingerprint(config, start="abc")
    assert prints.keys() == {"model", "start", "trains"}
    assert fingerprint(dict(config, model=dict(b=[2, 3], a=1), work_dir="y", linked=[]), start="abc") == prints
    assert fingerprint(dict(config, model=dict(a=1, b=(2, 4))), start="abc")["model"] != prints["model"]
    assert fingerprint(dict(config, quantization=dict(bits=7)), start="abc") == prints
    assert measuring_digest(dict(config, quantization=dict(bits=7))) != measuring_digest(config)
    assert measuring_digest(dict(config, model={})) == measuring_digest(config)


def test_a_checkpoint_counts_by_its_content_and_data_by_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        Path(name).write_bytes(content)

    def prints(weights: str, root: str) -> Fingerprint:
        return fingerprint(dict(model=dict(guide=[dict(weights=weights)]), data_root=root, name="data"))

    assert prints("a.pth", "data") == prints(str(tmp_path / "b.pth"), str(tmp_path / "data"))
    assert prints("a.pth", "data/mine") == prints("a.pth", f"{tmp_path}/data/mine/") != prints("a.pth", "data")
    assert prints("c.pth", "data")["model"] != prints("a.pth", "data")["model"]
    before = prints("a.pth", "data")
    Path("a.pth").write_bytes(b"3")
    assert prints("a.pth", "data")["model"] != before["model"], "the file was replaced"


def test_without_training_what_only_training_reads_does_not_count() -> None:
    config = dict(model={}, default_hooks=dict(checkpoint=dict(interval=1), logger=dict(interval=1)))
    changed = dict(config, default_hooks=dict(checkpoint=dict(interval=2)), optim_wrapper=dict(lr=1))
    assert fingerprint(config, trains=False) == fingerprint(changed, trains=False, amp="auto")
    assert fingerprint(config).keys() - fingerprint(config, trains=False).keys() == {"default_hooks"}
    assert fingerprint(config) == fingerprint(dict(config, default_hooks=dict(checkpoint=dict(interval=1))))
    assert fingerprint(config)["default_hooks"] != fingerprint(changed)["default_hooks"]
    assert fingerprint(config, amp="auto").keys() - fingerprint(config).keys() == {"amp"}


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
