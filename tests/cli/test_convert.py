"""``efftasks convert`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from efftasks.cli.main import main, parse_args
from efftasks.models.published.checkpoint import FAMILIES

ATTO = "deimv2-atto_hgnetv2-atto_8xb16-500e_coco-320"


@pytest.fixture(scope="module")
def theirs(authors: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "atto.pth"
    torch.save({"model": authors.tensors(authors.record("deimv2-atto"))}, path)
    return path


def test_converts_and_reports(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "atto.pth"
    assert main(["convert", "--from", "deimv2", str(theirs), "--out", str(out), "--list"]) == 0
    text = capsys.readouterr().out
    assert f"{ATTO}: " in text and "80 classes" in text
    assert "mapped   backbone.stem.stem1.conv.weight -> backbone.stem.stem1.conv.weight" in text
    assert "unused   decoder.anchors" in text
    meta = torch.load(out, weights_only=True)["meta"]
    assert meta["dataset_meta"]["category_ids"][11] == 13  # COCO's ids have gaps
    assert meta["published"]["config"] == ATTO


def test_other_categories_are_taken_by_id(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    categories = [dict(id=18, name="dog"), dict(id=1, name="somebody")]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(dict(images=[dict(id=1)], annotations=[], categories=categories)))
    out = tmp_path / "two.pth"
    assert main(["convert", "--from", "deimv2", str(theirs), "--out", str(out), "--categories", str(file)]) == 0
    text = capsys.readouterr().out
    assert "somebody (id 1): label 0 of the file" in text and "dog (id 18): label 16 of the file" in text
    state = torch.load(out, weights_only=True)["state_dict"]
    before = torch.load(theirs, weights_only=True)["model"]
    torch.testing.assert_close(
        state["head.decoder.score_heads.2.weight"], before["decoder.dec_score_head.2.weight"][[0, 16]]
    )
    torch.testing.assert_close(
        state["head.denoising.embedding.weight"], before["decoder.denoising_class_embed.weight"][[0, 16, 80]]
    )


def test_unknown_ids_are_refused(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(dict(images=[dict(id=1)], annotations=[], categories=[dict(id=12, name="sign")])))
    line = ["convert", "--from", "deimv2", str(theirs), "--out", str(tmp_path / "x.pth"), "--categories", str(file)]
    assert main(line) == 2
    assert "no class with the id of 'sign' (id 12)" in capsys.readouterr().err
    assert not (tmp_path / "x.pth").exists()


def test_a_checkpoint_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.pth"
    torch.save({"model": {"layer.weight": torch.zeros(2)}}, path)
    assert main(["convert", "--from", "dfine", str(path), "--out", str(tmp_path / "x.pth")]) == 2
    assert "neither the names of the authors' checkpoints nor of transformers'" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_chosen(family: str) -> None:
    assert parse_args(["convert", "--from", family, "theirs.pth", "--out", "ours.pth"]).family == family
