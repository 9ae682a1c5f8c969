"""Wrong values of options and odd files, through the command line: one sentence that names them, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from efftasks.cli.main import main

CONFIG = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"


def check_failure(capsys: pytest.CaptureFixture[str], words: list[str], *said: str) -> None:
    assert main(words) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and "unexpected" not in last
    for part in said:
        assert part in last


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--num-images", "0"], "--num-images: got 0, expected an integer from 1"),
        (["--num-images", "-1"], "--num-images: got -1"),
        (["--size", "0", "-5"], "--size: got 0 -5, expected two integers from 1"),
        (["--images", "nowhere"], "--images: nowhere is no folder"),
    ],
)
def test_options_of_export(capsys, options, said):
    check_failure(capsys, ["export", CONFIG, "a.pth", *options], said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runs", "0"], "--runs: got 0"),
        (["--threads", "0"], "--threads: got 0"),
        (["--size", "0", "-5"], "--size: got 0 -5"),
        (["--backend", "tpu"], "--backend: got 'tpu'"),
    ],
)
def test_options_of_benchmark(capsys, options, said):
    check_failure(capsys, ["benchmark", CONFIG, *options], said)


def test_files_of_unknown_kinds_name_both_lists(capsys, tmp_path):
    image = str(tmp_path / "a.png")
    cv2.imwrite(image, np.zeros((8, 8, 3), np.uint8))
    for words in (["predict", "model.zip", image], ["benchmark", "model.zip"]):
        check_failure(capsys, words, "model.zip: no runtime for .zip", ".onnx", ".pth", ".safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".PTH"])
def test_every_suffix_of_a_checkpoint_is_one_everywhere(capsys, suffix, tmp_path):
    name = str(tmp_path / f"none{suffix}")
    check_failure(capsys, ["predict", name, "a.png"], "--config: missing, a checkpoint")
    check_failure(capsys, ["benchmark", name], "no such checkpoint file")


def test_out_that_is_a_file(capsys, tmp_path):
    (tmp_path / "out").write_text("")
    check_failure(
        capsys, ["export", CONFIG, "a.pth", "--out", str(tmp_path / "out")], "out is a file, expected a folder"
    )
    check_failure(capsys, ["predict", "a.onnx", "a.png", "--out", str(tmp_path / "out")], "out is a file")
    words = ["dataset", "shapes", "--out", str(tmp_path / "out" / "deeper"), "--train", "1", "--val", "1"]
    check_failure(capsys, words, "expected a folder")


def test_images_to_verify_on(capsys, tmp_path):
    from efftasks import apis

    cfg = apis.load_config(CONFIG, {"classes": ["a"]})
    state = apis.build(cfg).state_dict()
    torch.save(
        dict(state_dict=state, meta=dict(dataset_meta=dict(classes=["a"], category_ids=[1]))), tmp_path / "a.pth"
    )
    (tmp_path / "photos").mkdir()
    words = ["export", CONFIG, str(tmp_path / "a.pth"), "--out", str(tmp_path / "out"), "--images"]
    words += [str(tmp_path / "photos"), "--cfg-options", "classes=[a]"]
    check_failure(capsys, words, "photos: no image found")
    (tmp_path / "photos" / "b.png").write_bytes(b"no image")
    check_failure(capsys, words, "--images: ", "photos has no image that can be read")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"id2label": 5}', '{"id2label": {"x": "cat"}}'])
def test_a_broken_config_beside_a_published_file(text, tmp_path):
    from efftasks.apis.converting import _labels
    from efftasks.structures.errors import UserError

    path = Path(tmp_path, "config.json")
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.json: id2label: cannot be read"):
        _labels(path)
