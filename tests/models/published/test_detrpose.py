"""A whole checkpoint of DETRPose's authors: D-FINE's backbone, and the encoder and transformer that were recorded."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from efftasks.apis import load
from efftasks.apis.converting import read_published, write_published
from efftasks.structures.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
QUERIES = 60  # recorded with 20


@pytest.fixture
def theirs(authors: Any, module_at: Any) -> dict[str, torch.Tensor]:
    reference: ModuleType = module_at(ROOT / "tests" / "models" / "pose_heads" / "reference.py")
    recorded = reference.record()
    shapes = {f"transformer.{name}": shape for name, shape in recorded["tensors"].items()}
    shapes |= recorded["encoder"]["tensors"]
    shapes |= {name: s for name, s in authors.record("dfine-n")["tensors"].items() if name.startswith("backbone.")}
    shapes["transformer.tgt_embed.weight"] = [QUERIES, *shapes["transformer.tgt_embed.weight"][1:]]
    shapes |= {"transformer.reg_scale": [1], "transformer.up": [1], "transformer.decoder.dim_t": [64]}
    made = {
        name: torch.from_numpy(np.asarray(authors.fill(name, tuple(shape)), dtype=np.float32))
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }
    return {**made, "transformer.reg_scale": torch.tensor([4.0])}


def test_every_tensor_has_its_place_and_persons_are_category_1(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"ema": {"module": theirs}}, tmp_path / "theirs.pth")
    published = read_published("detrpose", tmp_path / "theirs.pth")
    assert published.config == "detrpose-n_hgnetv2-b0_8xb4-160e_coco-640"
    assert published.conversion.complete
    assert (published.classes, published.category_ids, published.rows) == (("person",), (1,), (1,))
    write_published(published, tmp_path / "ours.pth")

    model = load(published.config, tmp_path / "ours.pth")
    assert model.dataset_meta["keypoints"]["names"][0] == "nose"
    state = model.state_dict()
    for ours, name in (
        ("decoder.score_heads.2.weight", "class_embed.2.weight"),
        ("selection.score_head.bias", "enc_out_class_embed.bias"),
        ("denoising.label_tokens", "label_enc.weight"),  # 81 rows, of which two are used
    ):
        torch.testing.assert_close(state[f"head.{ours}"], theirs[f"transformer.{name}"][1:2])
    with torch.no_grad():
        assert model(torch.rand(1, 3, 128, 128), mode="tensor").poses.isfinite().all()


def test_another_scale_of_the_distributions_is_another_model(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"model": {**theirs, "transformer.reg_scale": torch.tensor([8.0])}}, tmp_path / "theirs.pth")
    conversion = read_published("detrpose", tmp_path / "theirs.pth").conversion
    assert conversion.mismatched == ["reg_scale 8.0 for 4.0"]


def test_classes_of_another_data_set_are_not_named_after_cocos(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    more = {
        name: torch.cat([tensor, tensor]) if "class_embed" in name and tensor.shape[0] == 2 else tensor
        for name, tensor in theirs.items()
    }
    torch.save({"model": more}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"it has labels 0 to 3, expected 0 to 1 for person of .* by --categories"):
        read_published("detrpose", tmp_path / "theirs.pth")


def test_a_file_without_scores_is_another_kind_of_file(theirs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    del theirs["transformer.enc_out_class_embed.bias"]
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match="expected a checkpoint of detrpose"):
        read_published("detrpose", tmp_path / "theirs.pth")
