"""What a config states once reaches every place that needs it."""

from __future__ import annotations

import json
from pathlib import Path

import efftasks.compat  # noqa: F401

import pytest

from efftasks.config import fit_transform, innermost, load_config, pixel_range
from efftasks.structures.errors import UserError

POSE = "o2opose-n_mobilenetv4-conv-s_1xb16-100e_custom-640"


def write(root: Path, **category: object) -> str:
    (root / "annotations").mkdir()
    data = dict(images=[dict(id=1)], annotations=[], categories=[dict(id=3, name="cat", **category)])
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.json").write_text(json.dumps(data))
    return str(root)


def test_keypoints_come_from_the_annotations(tmp_path):
    root = write(tmp_path, keypoints=["nose", "left_paw", "right_paw"], skeleton=[[1, 2], [1, 3]])
    cfg = load_config(POSE, dict(data_root=root))
    assert cfg.model.head.parts.keypoints.sigmas == [0.026, 0.05, 0.05]  # a nose is a person's to the metric
    facts = cfg.train_dataloader.dataset.metainfo.keypoints
    assert tuple(facts.names) == ("nose", "left_paw", "right_paw")
    assert [tuple(pair) for pair in facts.flip_pairs] == [(1, 2)]
    assert [tuple(pair) for pair in facts.skeleton] == [(0, 1), (0, 2)]
    assert cfg.test_evaluator.ann_file == f"{root}/annotations/val.json"


def test_the_config_has_the_last_word_on_sigmas(tmp_path):
    root = write(tmp_path, keypoints=["a", "b"])
    cfg = load_config(POSE, {"data_root": root, "keypoints": {"sigmas": 0.1}})
    assert cfg.model.head.parts.keypoints.sigmas == [0.1, 0.1]


def test_data_without_keypoints_is_no_pose_data(tmp_path):
    with pytest.raises(UserError, match=r"train\.json: no category has keypoints"):
        load_config(POSE, dict(data_root=write(tmp_path)))


def test_one_network_has_two_sets_of_classes():
    cfg = load_config("o2omulti-n_mobilenetv4-conv-s_1xb16-36e_shapes-128")
    assert cfg.model.head.num_classes == 6 and cfg.model.semantic_head.num_classes == 7
    meta = cfg.val_dataloader.dataset.metainfo
    assert len(meta.classes) == 6 and meta.semantic_classes[0] == "background"
    assert cfg.test_evaluator[0].ann_file.endswith("annotations/val.json") and "ann_file" not in cfg.test_evaluator[1]


@pytest.mark.parametrize("kind", ["FitImage", "RandomWarp", "ObjectMosaic"])
def test_transforms_without_a_size_get_the_configs(tmp_path, kind):
    root = write(tmp_path, keypoints=["a", "b"])
    cfg = load_config(POSE, dict(data_root=root, image_size=(256, 320)))
    pipelines = [cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline]
    sizes = [tuple(x["size"]) for pipeline in pipelines for x in pipeline if x["type"] == kind]
    assert sizes and set(sizes) == {(256, 320)}
    assert tuple(fit_transform(cfg)["size"]) == (256, 320)


def test_a_head_for_one_size_gets_it():
    cfg = load_config("simcc-n_mobilenetv4-conv-s_8xb64-210e_coco-256")
    assert tuple(cfg.model.head.input_size) == (256, 192) == tuple(fit_transform(cfg)["size"])
    assert len(cfg.model.head.sigmas) == 17


def test_the_innermost_of_a_mixture_is_its_first():
    leaf = dict(type="CocoDetection")
    mixture = dict(type="RepeatDataset", dataset=dict(type="ConcatDataset", datasets=[leaf, dict(type="B")]))
    assert innermost(mixture) is leaf


SEMANTIC = "fpnlite-n_mobilenetv4-conv-s_1xb8-100e_custom-512"


def loaders(cfg, part: str) -> list:
    return [step for step in cfg[f"{part}_dataloader"].dataset.pipeline if step["type"] == "LoadImage"]


@pytest.mark.parametrize("name", [SEMANTIC, POSE])
def test_the_range_of_pixels_reaches_every_loader(name):
    options = dict(classes=["a", "b"], pixel_range=[0, 4095], keypoints=dict(names=["x"], sigmas=0.1))
    cfg = load_config(name, options if name == POSE else {key: options[key] for key in ("classes", "pixel_range")})
    for part in ("train", "val", "test"):
        assert [tuple(step.pixel_range) for step in loaders(cfg, part)] == [(0, 4095)]
    assert pixel_range(cfg) == (0, 4095)
    assert pixel_range(load_config(SEMANTIC, dict(classes=["a", "b"]))) is None


def test_a_range_that_nothing_reads_by_is_an_error(tmp_path):
    cfg = load_config(SEMANTIC, dict(classes=["a", "b"], pixel_range=[0, 4095]))
    cfg.dump(tmp_path / "dumped.py")
    assert pixel_range(load_config(tmp_path / "dumped.py", dict(pixel_range=[0, 4095]))) == (0, 4095)
    assert pixel_range(load_config(tmp_path / "dumped.py", dict(pixel_range=[0, 1]))) == (0, 1)
    own = load_config(SEMANTIC, dict(classes=["a", "b"]))
    loaders(own, "val")[0].pixel_range = [0, 1]
    with pytest.raises(UserError, match=r"pixel_range: got \(0, 4095\), but that of a LoadImage is \(0, 1\)"):
        load_config(own, dict(pixel_range=[0, 4095]))
    for part in ("train", "val", "test"):
        cfg[f"{part}_dataloader"].dataset.pipeline = [dict(type="mmcv.LoadImageFromFile")]
    with pytest.raises(UserError, match="no pipeline has a LoadImage"):
        load_config(cfg)
    with pytest.raises(UserError, match="pixel_range: got 5, expected two numbers"):
        load_config(SEMANTIC, dict(classes=["a", "b"], pixel_range=5))
