"""Overrides and changes of a config: they reach what they are for, or say why they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from efftasks import apis
from efftasks.datasets.transforms.fit_image import FitImage
from efftasks.registry import TRANSFORMS
from efftasks.structures.errors import UserError

SHAPES = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
CUSTOM = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"


def sizes(cfg: Config) -> set[tuple[int, int]]:
    return {tuple(x["size"]) for x in cfg.train_dataloader.dataset.pipeline if "size" in x}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_dataloder.batch_size", 4, r"no 'train_dataloder'.* did you mean 'train_dataloader.batch_size'\?"),
        (
            "train_dataloader.batchsize",
            4,
            r"train_dataloader\.batchsize: there is no such key; did you mean 'batch_size'",
        ),
        ("randomness.sed", 4, r"randomness\.sed: there is no such key; did you mean 'seed'"),
        ("train_pipeline", [], "train_pipeline.* lines of the config file alone.*; set train_dataloader"),
        ("param_scheduler.7.T_max", 3, r"param_scheduler\.7\.T_max: the config has no place for this value"),
        ("crop_size", 64, "crop_size: nothing in this config uses it"),
        ("linked", [], "linked: the config has no 'linked'"),
        ("image_size", "abc", r"image_size: got 'abc', expected \(height, width\)"),
        ("image_size", (0, 64), r"image_size: got \(0, 64\)"),
        ("image_size", True, "image_size: got True"),
        ("classes", 3, "classes: got 3, expected names"),
        ("classes", ["a", "a"], "classes: 'a' occurs twice"),
        ("palette", [1, 2, 3], r"palette: got \[1, 2, 3\], expected the RGB of each class"),
        ("palette", [[1, 2, 3]], "palette: got 1 colors, expected 6"),
        ("keypoints", "abc", "keypoints: got 'abc', expected a dict"),
        ("scale", 2, "scale: got 2, expected a dict with phi"),
        ("max_epochs", "abc", "max_epochs: got 'abc', expected a whole number from 1"),
        ("max_epochs", 0, "max_epochs: got 0"),
        ("train_dataloader.batch_size", 0, r"train_dataloader\.batch_size: got 0, expected a whole number from 1"),
        ("train_dataloader.num_workers", -1, r"train_dataloader\.num_workers: got -1, expected a whole number from 0"),
        ("optim_wrapper.optimizer.lr", "abc", r"optim_wrapper\.optimizer\.lr: got 'abc', expected a number from 0"),
        ("optim_wrapper", 1, "optim_wrapper: got 1, expected a dict"),
        ("optim_wrapper.clip_grad", 1, r"optim_wrapper\.clip_grad: got 1, expected a dict"),
        ("custom_hooks", 5, "custom_hooks: got 5, expected a list of dicts"),
        ("param_scheduler", 3, "param_scheduler: got 3, expected a list of dicts"),
        (
            "train_dataloader.dataset.pipeline",
            "abc",
            r"train_dataloader\.dataset\.pipeline: got 'abc', expected a list",
        ),
    ],
)
def test_mistakes_are_one_sentence(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        apis.load_config(SHAPES, {key: value})


@pytest.mark.parametrize("key", ["model", "train_dataloader", "train_cfg", "optim_wrapper", "val_evaluator"])
def test_training_names_the_part_that_is_missing(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}: the config has none, expected"):
        apis.train(apis.load_config(SHAPES, {key: None}))


def test_a_size_that_is_no_multiple_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    cfg = apis.load_config(SHAPES, {"image_size": (65, 64), "data_root": str(tmp_path)})
    cfg.work_dir = str(tmp_path / "run")
    with pytest.raises(UserError, match="image_size: got 65 x 64, expected multiples of 32"):
        apis.train(cfg)


def test_one_name_is_one_class() -> None:
    cfg = apis.load_config(CUSTOM, {"classes": "ant"})
    assert cfg.classes == ("ant",) and cfg.model.head.num_classes == 1


def test_no_workers_are_not_persistent() -> None:
    cfg = apis.load_config(SHAPES, {"val_dataloader.num_workers": 0})
    assert cfg.val_dataloader.persistent_workers is False and cfg.train_dataloader.num_workers is None


def test_the_test_data_are_those_of_the_validation_where_a_config_says_so() -> None:
    place = "dataset.data_prefix.img"
    cfg = apis.load_config(CUSTOM, {"classes": "ant", f"val_dataloader.{place}": "valid/images/"})
    assert cfg.test_dataloader.dataset.data_prefix.img == cfg.val_dataloader.dataset.data_prefix.img == "valid/images/"
    options = {"classes": "ant", f"val_dataloader.{place}": "valid/", f"test_dataloader.{place}": "test/"}
    cfg = apis.load_config(CUSTOM, options)
    assert cfg.test_dataloader.dataset.data_prefix.img == "test/"
    assert cfg.val_dataloader.dataset.data_prefix.img == "valid/"


def test_a_config_is_not_changed_by_loading_it_again() -> None:
    cfg = apis.load_config(SHAPES)
    before = cfg.to_dict()
    other = apis.load_config(cfg, {"image_size": (64, 64), "classes": ["x"]})
    assert cfg.to_dict() == before and sizes(other) == {(64, 64)} and other.model.head.num_classes == 1


def test_what_was_set_after_linking_stays_and_the_rest_follows() -> None:
    cfg = apis.load_config(SHAPES)
    cfg.image_size = (64, 96)
    apis.set_input_size(cfg, (32, 32))
    again = apis.load_config(cfg)
    assert sizes(again) == {(64, 96)} and apis.input_size(again) == (32, 32)


def test_setting_one_place_sets_no_other() -> None:
    cfg = apis.load_config(SHAPES, {"train_dataloader.dataset.pipeline.2.size": (32, 32)})
    assert sizes(cfg) == {(32, 32)} and apis.input_size(cfg) == (128, 128)


def write(folder: Path, text: str) -> Path:
    base = apis.config_path(SHAPES)
    path = folder / "mine.py"
    path.write_text(f"_base_ = [{str(base)!r}]\n{text}", encoding="utf-8")
    return path


def test_a_file_on_top_of_a_config_states_the_same_values(tmp_path: Path) -> None:
    cfg = apis.load_config(write(tmp_path, "image_size = 64\nmax_epochs = 10\nclasses = 'ant'\n"))
    assert sizes(cfg) == {(64, 64)} and cfg.train_cfg.max_epochs == 10 == cfg.param_scheduler[1].T_max
    assert cfg.model.head.num_classes == 1


def test_what_a_file_states_itself_is_not_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "test_dataloader = dict(dataset=dict(pipeline=[dict(type='FitImage', size=(128, 128))]))\n")
    with pytest.raises(UserError, match=r"test_dataloader\.dataset\.pipeline\.0\.size: the config states \(128, 128\)"):
        apis.load_config(path, {"image_size": (64, 64)})
    path = write(tmp_path, "train_cfg = dict(max_epochs=18)\n")
    with pytest.raises(UserError, match=r"max_epochs: got 5, but the config states train_cfg\.max_epochs=18"):
        apis.load_config(path, {"max_epochs": 5})


def test_transforms_of_mmdet_are_linked_where_they_are_open() -> None:
    pipeline = [
        dict(type="mmdet.Mosaic", img_scale=None),
        dict(type="mmdet.RandomAffine", border=None),
        dict(type="mmdet.RandomAffine"),
        dict(type="mmdet.Resize", scale_factor=0.5),
        dict(type="mmdet.Resize", scale=None),
    ]
    cfg = apis.load_config(SHAPES, {"image_size": (64, 96), "train_dataloader.dataset.pipeline": pipeline})
    mosaic, affine, plain, half, resize = cfg.train_dataloader.dataset.pipeline
    assert mosaic.img_scale == (96, 64) == resize.scale
    # A mosaic is twice as large: what RandomAffine keeps of (width, height) = (192, 128) is (96, 64).
    assert affine.border == (-48, -32)
    assert "border" not in plain and "scale" not in half


def test_a_subclass_may_leave_out_a_linked_argument() -> None:
    """It states its size itself: nothing is filled in."""

    class FixedFit(FitImage):
        def __init__(self) -> None:
            super().__init__(size=(64, 64))

    TRANSFORMS.register_module(module=FixedFit, force=True)
    try:
        cfg = apis.load_config(SHAPES)
        cfg.val_dataloader.dataset.pipeline[1] = dict(type="FixedFit")
        assert apis.load_config(cfg).val_dataloader.dataset.pipeline[1] == dict(type="FixedFit")
    finally:
        del TRANSFORMS.module_dict["FixedFit"]


def test_square_batches_need_a_square() -> None:
    name = "dfine-s_hgnetv2-b0_8xb4-132e_coco-640"
    with pytest.raises(UserError, match="MultiScale makes square batches, and image_size is 320 x 640"):
        apis.load_config(name, {"image_size": (320, 640)})


def coco(root: Path, names: list[str]) -> str:
    (root / "annotations").mkdir(parents=True)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    text = json.dumps(dict(images=[dict(id=1)], annotations=[], categories=categories))
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.json").write_text(text)
    return str(root)


def test_classes_of_other_data_are_read_anew_and_those_that_are_gone_stay(tmp_path: Path) -> None:
    cfg = apis.load_config(CUSTOM, {"data_root": coco(tmp_path / "a", ["cat", "dog"])})
    assert cfg.classes == ("cat", "dog")
    other = apis.load_config(cfg, {"data_root": coco(tmp_path / "b", ["x", "y", "z"])})
    assert other.classes == ("x", "y", "z") and other.model.head.num_classes == 3
    (tmp_path / "a/annotations/train.json").unlink()
    assert apis.load_config(cfg).model.head.num_classes == 2


def test_missing_annotations_leave_classes_open_until_a_model_is_built(tmp_path: Path) -> None:
    cfg = apis.load_config(CUSTOM, {"data_root": str(tmp_path)})
    assert cfg.model.head.num_classes is None
    with pytest.raises(UserError, match=r"annotations/train\.json: cannot be read .*takes its classes from it"):
        apis.build(cfg)
