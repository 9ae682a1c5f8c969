"""Converted checkpoints of the authors give the outputs that were recorded from the authors' code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from efftasks.apis import load
from efftasks.apis.converting import read_published, write_published
from efftasks.structures.errors import UserError

SIZES = {
    "deim-n": "deim-n_hgnetv2-b0_8xb16-160e_coco-640",
    "deimv2-atto": "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320",
    "deimv2-femto": "deimv2-femto_hgnetv2-femto_8xb16-500e_coco-416",
    "deimv2-n": "deimv2-n_hgnetv2-b0_8xb4-160e_coco-640",
    "deimv2-pico": "deimv2-pico_hgnetv2-b0_8xb16-500e_coco-640",
    "dfine-n": "dfine-n_hgnetv2-b0_8xb16-160e_coco-640",
    "dfine-s": "dfine-s_hgnetv2-b0_8xb4-132e_coco-640",
    "rtdetrv2-m": "rtdetrv2-m_resnet50vd_4xb4-84e_coco-640",
    "rtdetrv2-s": "rtdetrv2-s_resnet18vd_4xb4-120e_coco-640",
}


def test_every_record_is_tested(authors: Any) -> None:
    assert sorted(SIZES) == authors.NAMES


@pytest.mark.parametrize("name", sorted(SIZES))
def test_same_outputs_after_conversion(authors: Any, name: str, tmp_path: Path) -> None:
    record = authors.record(name)
    source = tmp_path / "theirs.pth"
    torch.save({"ema": {"module": authors.tensors(record)}, "date": "today"}, source)
    published = read_published(name.split("-")[0], source)
    assert published.config == SIZES[name]
    assert published.conversion.complete and not published.conversion.unknown
    write_published(published, tmp_path / "ours.pth")

    model = load(published.config, tmp_path / "ours.pth")
    assert model.dataset_meta["classes"][:2] == ["person", "bicycle"]
    assert model.dataset_meta["category_ids"][-1] == 90
    model.head.selection.num_queries = record["num_queries"]
    with torch.no_grad():
        raw = model(authors.image(record), mode="tensor")
    torch.testing.assert_close(raw.logits[0], torch.tensor(record["logits"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(raw.boxes[0], torch.tensor(record["boxes"]), atol=1e-4, rtol=0)


def test_other_sizes_are_not_mistaken(authors: Any, tmp_path: Path) -> None:
    source = tmp_path / "theirs.pth"
    torch.save({"model": authors.tensors(authors.record("dfine-n"))}, source)
    with pytest.raises(UserError, match="no shipped size of rtdetrv2"):
        read_published("rtdetrv2", source)


def test_what_has_no_place_is_an_error_unless_asked_for(authors: Any, tmp_path: Path) -> None:
    tensors = authors.tensors(authors.record("deimv2-atto"))
    tensors["decoder.novelty.weight"] = torch.zeros(3)
    source = tmp_path / "theirs.pth"
    torch.save({"model": tensors}, source)
    published = read_published("deimv2", source, config=SIZES["deimv2-atto"])
    assert published.conversion.unknown == ["decoder.novelty.weight"]
    with pytest.raises(UserError, match=r"1 unknown; first unknown decoder\.novelty\.weight"):
        write_published(published, tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()
    write_published(published, tmp_path / "ours.pth", allow_unmapped=True)
    assert (tmp_path / "ours.pth").exists()
