import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import nn

from efftasks.checkpoints.files import dataset_meta_of, load_matching, read_checkpoint, read_state_dict
from efftasks.structures.errors import UserError


class Payload:
    """Runs code when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    data = {"state_dict": {"a": torch.zeros(1)}, "x": Payload(tmp_path / "ran")}
    torch.save(data, tmp_path / "zip.pth")
    (tmp_path / "bare2.pth").write_bytes(pickle.dumps({"x": Payload(tmp_path / "ran")}, protocol=2))
    (tmp_path / "bare4.pth").write_bytes(pickle.dumps({"x": Payload(tmp_path / "ran")}, protocol=4))
    for name, asked in (("zip", "posix.mkdir"), ("bare2", "posix.mkdir"), ("bare4", "an operation that no weights")):
        with pytest.raises(UserError, match=rf"refused, the file is a pickle that asks for {asked}"):
            read_checkpoint(tmp_path / f"{name}.pth")
        assert not (tmp_path / "ran").exists()


def test_getattr_is_out_of_reach(tmp_path):
    """mmengine's own files refer to getattr; a hostile one could reach further with it."""

    class Reach:
        def __reduce__(self):
            return getattr, (torch.Tensor, "__doc__")

    torch.save({"x": Reach(), "a": torch.zeros(1)}, tmp_path / "a.pth")
    assert not isinstance(read_checkpoint(tmp_path / "a.pth")["x"], str)


def test_mmengine_checkpoints_are_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    data = dict(meta=dict(best=np.float64(0.5)), state_dict={"a": torch.ones(2)}, message_hub=dict(loss=history))
    torch.save(data, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth")["meta"]["best"] == 0.5
    assert torch.equal(read_state_dict(tmp_path / "a.pth")["a"], torch.ones(2))


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_truncated_files(tmp_path, keep):
    torch.save({"a": torch.randn(1000)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="truncated, or not a checkpoint"):
        read_checkpoint(tmp_path / "a.pth")


def test_missing_file_and_file_without_weights(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="no weights in it"):
        read_state_dict(tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "ema_state_dict": {"a": torch.zeros(2)}},
        lambda w: {"model": {"a": torch.zeros(2)}, "ema": {"module": w, "updates": 3}},
        lambda w: {"model": {f"module.{k}": v for k, v in w.items()}},
    ],
    ids=["plain", "mmengine", "ema before model", "module prefix"],
)
def test_common_layouts(tmp_path, wrap):
    torch.save(wrap({"a": torch.ones(2)}), tmp_path / "a.pth")
    state = read_state_dict(tmp_path / "a.pth")
    assert list(state) == ["a"] and torch.equal(state["a"], torch.ones(2))


def test_another_architecture_is_described_and_nothing_is_loaded():
    first = nn.Linear(2, 3)
    module = nn.Sequential(first, nn.Linear(3, 1))
    before = first.bias.clone()
    state = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(3),
        "1.weight": torch.zeros(4, 3),
        "x": torch.zeros(1),
    }
    with pytest.raises(UserError) as error:
        load_matching(module, state, name="w.pth")
    said = str(error.value)
    assert "w.pth is of another architecture than Sequential" in said
    assert (
        "1 missing (1.bias)" in said
        and "1 unexpected (x)" in said
        and "1 mismatched (1.weight (4, 3) for (1, 3))" in said
    )
    assert torch.equal(first.bias, before)
    report = load_matching(module, state, strict=False)
    assert report.matched == ["0.weight", "0.bias"] and not report.complete
    assert torch.equal(first.bias, torch.zeros(3))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_of_any_kind_is_a_user_error(tmp_path):
    """The reader stumbles over damaged bytes in many ways; none may come through."""
    rng = np.random.default_rng(0)
    state = {"meta": dict(epoch=1, best=np.float64(2)), "state_dict": {"a": torch.ones(50)}}
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("zip", "legacy"):
        whole = (tmp_path / f"{name}.pth").read_bytes()
        for _ in range(300):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), int(rng.choice([64, 400, len(data)]))), 3):
                data[place] = rng.integers(256)
            (tmp_path / "a.pth").write_bytes(data)
            try:
                read_checkpoint(tmp_path / "a.pth")
            except UserError as error:
                assert "a.pth" in str(error)


def test_timm_layout_takes_the_average(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(2)}, "state_dict_ema": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    assert torch.equal(read_state_dict(tmp_path / "a.pth")["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ([1], "meta: got a list, expected a dict"),
        ("x", "meta: got a str"),
        ({"dataset_meta": ["a"]}, "meta.dataset_meta: got a list"),
        ({"dataset_meta": {"classes": "cat"}}, "meta.dataset_meta.classes: got 'cat', expected a list of names"),
        ({"dataset_meta": {"classes": [1]}}, "meta.dataset_meta.classes"),
        ({"dataset_meta": {"classes": ["a"], "category_ids": [1, 2]}}, "meta.dataset_meta.category_ids"),
    ],
)
def test_odd_facts_of_a_checkpoint_are_named(meta, said):
    with pytest.raises(UserError, match=said) as error:
        dataset_meta_of({"meta": meta}, "a.pth")
    assert str(error.value).startswith("a.pth: ")


def test_a_checkpoint_may_say_nothing_of_its_data():
    silent: list[dict[str, Any]] = [{}, {"meta": None}, {"meta": {}}, {"meta": {"dataset_meta": None}}]
    for data in silent:
        assert dataset_meta_of(data, "a.pth") == {}
    assert dataset_meta_of({"meta": {"dataset_meta": {"classes": ("a",)}}}, "a.pth") == {"classes": ("a",)}


@pytest.mark.parametrize("name", ["a.onnx", "a.txt", "a"])
def test_a_file_of_another_name_is_no_checkpoint(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"not a checkpoint, whose names end in \.pth, \.pt, \.safetensors"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(weight=torch.zeros(3, 2)), r"1 mismatched \(weight \(3, 2\) for \(2, 3\)\)"),
        (dict(bias=None), r"1 missing \(bias\)"),
        (dict(scale=torch.zeros(1)), r"1 unexpected \(scale\)"),
    ],
)
def test_nothing_is_loaded_unless_all_of_it_fits(change: dict[str, Any], said: str) -> None:
    module = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    new = {"weight": torch.ones(2, 3), "bias": torch.ones(2), **change}
    state = {key: value for key, value in new.items() if value is not None}
    with pytest.raises(UserError, match=rf"a\.pth is of another architecture than Linear: .*{said}"):
        load_matching(module, state, name="a.pth")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    report = load_matching(module, state, strict=False)
    assert not report.complete and report.matched
    assert all(bool((module.state_dict()[key] == 1).all()) for key in report.matched)
    assert load_matching(module, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}).complete
