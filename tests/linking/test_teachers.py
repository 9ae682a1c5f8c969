"""A teacher by the name of its config, and the checkpoint that the config states once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from efftasks import apis
from efftasks.config import config_of_checkpoint
from efftasks.structures.errors import UserError

STUDENT = "o2o-n_mobilenetv4-conv-s_1xb16-100e_custom-640"
TEACHER = "dfine-s_hgnetv2-b0_8xb4-132e_coco-640"


def load(folder: Path, guide: str, options: dict[str, Any] | None = None, text: str = "") -> Config:
    path = folder / "mine.py"
    lines = f"_base_ = [{str(apis.config_path(STUDENT))!r}]\n{text}\nmodel = dict(guide={guide})"
    path.write_text(lines, encoding="utf-8")
    return apis.load_config(path, {"classes": ["ant", "bee"], **(options or {})})


def guide(teacher: str = TEACHER, more: str = "") -> str:
    return f"dict(type='Distillation', teacher={teacher!r}, terms=dict(a=dict(type='OneToManyTerm')){more})"


def test_the_name_becomes_the_model_with_the_students_classes(tmp_path: Path) -> None:
    cfg = load(tmp_path, guide())
    teacher, published = cfg.model.guide.teacher, apis.load_config(TEACHER).model
    assert published.head.num_classes == 80 and teacher.head.num_classes == 2
    assert "batch_augments" in published.data_preprocessor and "batch_augments" not in teacher.data_preprocessor
    for part in ("backbone", "neck"):
        assert teacher[part] == published[part]
    assert teacher.head.decoder == published.head.decoder
    assert cfg.model.guide.class_names == ["ant", "bee"]
    built = apis.build(cfg)
    guide_of: Any = built.guide
    assert guide_of.teacher.head.num_classes == 2 and guide_of.class_names == ("ant", "bee")


def test_linked_again_and_dumped_it_is_the_same(tmp_path: Path) -> None:
    cfg = load(tmp_path, guide(more=", fade=(0.0, 'no_aug_from')"), text="teacher_weights = 'a.pth'")
    again = apis.load_config(cfg)
    assert again.model == cfg.model and cfg.model.guide.weights == "a.pth"
    assert cfg.model.guide.fade[0] == 0 < cfg.model.guide.fade[1] < 1
    Config(cfg.to_dict(), format_python_code=False).dump(str(tmp_path / "dumped.py"))
    changed = dict(classes=["x", "y", "z"], teacher_weights="b.pth", image_size=(320, 320))
    dumped = apis.load_config(tmp_path / "dumped.py", changed)
    fresh = load(tmp_path, guide(more=", fade=(0.0, 'no_aug_from')"), changed, "teacher_weights = 'a.pth'")
    assert dumped.model == fresh.model
    assert dumped.model.guide.weights == "b.pth" and dumped.model.guide.teacher.head.num_classes == 3
    other = apis.load_config(tmp_path / "dumped.py", {"model.guide.teacher": STUDENT})
    assert other.model.guide.teacher.head.type == "O2OHead"


def test_dumped_it_needs_the_teachers_config_no_more(tmp_path: Path) -> None:
    """As a work dir that is moved to another machine for testing and export."""
    file = tmp_path / "teacher.py"
    file.write_text(f"_base_ = [{str(apis.config_path(TEACHER))!r}]\nmodel = dict(neck=dict(depth=0.5))\n", "utf-8")
    cfg, changed = load(tmp_path, guide(str(file))), dict(classes=["x", "y", "z"], image_size=(320, 320))
    fresh = load(tmp_path, guide(str(file)), changed)
    Config(cfg.to_dict(), format_python_code=False).dump(str(tmp_path / "dumped.py"))
    assert cfg.model.guide.teacher.neck.depth == 0.5
    file.unlink()
    assert apis.load_config(tmp_path / "dumped.py").model == cfg.model == apis.load_config(cfg).model
    again = apis.load_config(tmp_path / "dumped.py", changed)
    assert again.model == fresh.model and again.model.guide.teacher.head.num_classes == 3
    trained_on = dict(classes=["x", "y", "z"])
    of_checkpoint = config_of_checkpoint(tmp_path / "dumped.py", trained_on)
    assert of_checkpoint.model.guide.teacher.head.num_classes == 3
    Config(again.to_dict(), format_python_code=False).dump(str(tmp_path / "twice.py"))
    assert apis.load_config(tmp_path / "twice.py").model == again.model
    with pytest.raises(UserError, match=r"other\.py: no such config file"):
        apis.load_config(tmp_path / "dumped.py", {"model.guide.teacher": "other.py"})
    file.write_text("model = dict(", encoding="utf-8")
    with pytest.raises(UserError, match=r"teacher\.py: the config does not parse"):
        apis.load_config(tmp_path / "dumped.py")


def test_a_teachers_own_teacher_is_left_out(tmp_path: Path) -> None:
    cfg = load(tmp_path, guide("o2o-n_mobilenetv4-conv-s_1xb8-48e_bccd-320_distil"))
    assert "guide" not in cfg.model.guide.teacher
    assert cfg.model.guide.teacher.head.num_classes == 2


def test_a_config_of_mmdet_keeps_its_scope(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("default_scope = 'mmdet'\nmodel = dict(type='RetinaNet', backbone=dict())\n")
    teacher = load(tmp_path, guide(str(tmp_path / "theirs.py"))).model.guide.teacher
    assert teacher == dict(type="RetinaNet", backbone=dict(), _scope_="mmdet")


def test_what_the_guide_states_itself_stays(tmp_path: Path) -> None:
    teacher = "dict(type='Detector', head=dict(type='O2OHead', num_classes=None))"
    text = guide().replace(repr(TEACHER), teacher).replace("terms=", "weights='own.pth', class_names=['q'], terms=")
    linked = load(tmp_path, text, text="teacher_weights = 'a.pth'").model.guide
    assert linked.weights == "own.pth" and linked.class_names == ["q"] and linked.teacher.head.num_classes == 2


def test_a_guide_of_feature_maps_takes_a_name_too(tmp_path: Path) -> None:
    cfg = load(tmp_path, f"dict(type='FeatureGuide', teacher={STUDENT!r})", {"teacher_weights": "a.pth"})
    assert cfg.model.guide.weights == "a.pth" and "class_names" not in cfg.model.guide
    built: Any = apis.build(cfg)
    assert built.guide.teacher.head.num_classes == 2


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"o2o-huge: no such config file"):
        load(tmp_path, guide("o2o-huge"))
    with pytest.raises(UserError, match=r"^teacher_weights: nothing in this config uses it"):
        apis.load_config(STUDENT, {"classes": ["ant"], "teacher_weights": "a.pth"})
