"""A distilled model, taught by a compressed one, from its config through training, resume, test and export."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from efftasks import apis
from efftasks.checkpoints.files import read_checkpoint
from efftasks.cli.main import main
from efftasks.compression.plan import architecture_digest
from efftasks.datasets.shapes import write_shapes
from efftasks.structures.errors import UserError

PLAIN = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
TEACHER = f"{PLAIN}_lowrank"
SMALL = {
    "image_size": (64, 64),
    "model.backbone.width": 0.25,
    "model.neck.out_channels": (16, 16, 16),
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "val_dataloader.num_workers": 0,
    "val_dataloader.persistent_workers": False,
    "train_cfg.val_interval": 1,
}
GUIDE = """
teacher_weights = None
model = dict(
    guide=dict(
        type="Distillation",
        teacher=TEACHER,
        fade=(0.5, 1.0),
        terms=dict(
            maps=dict(type="MapTerm", loss=dict(type="MGDLoss", weight=2e-5)),
            inner=dict(type="MapTerm", student="backbone.stages.1", loss=dict(type="PKDLoss")),
            one_to_many=dict(type="OneToManyTerm", min_score=0.0),
        ),
    )
)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=4, size=64, seed=1)


def train(name: str | Path, data: Path, work_dir: Path, resume: str | None = None, **options: Any) -> Path:
    cfg = apis.load_config(name, {"data_root": f"{data}/", "max_epochs": 3, **SMALL, **options})
    cfg.work_dir = str(work_dir)
    apis.train(cfg, threads=1, check=False, resume=resume)
    return work_dir


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a compressed model, of another width than the student."""
    options: dict[str, Any] = {"max_epochs": 1, "model.backbone.width": 0.5, "model.neck.out_channels": (24, 24, 24)}
    return train(TEACHER, data, tmp_path_factory.mktemp("teacher"), **options) / "epoch_1.pth"


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of the student; the teacher's is the one that its training has left in its work dir."""
    path = tmp_path_factory.mktemp("config") / "student.py"
    (left,) = teacher.parent.glob("*.py")
    base = f"_base_ = [{str(apis.config_path(PLAIN))!r}]\n"
    path.write_text(base + GUIDE.replace("TEACHER", repr(str(left))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(student: Path, teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of three epochs of two steps."""
    return train(student, data, tmp_path_factory.mktemp("distilled"), teacher_weights=str(teacher))


def test_the_teacher_is_as_its_checkpoint_and_in_no_checkpoint(trained: Path, teacher: Path, data: Path) -> None:
    """The scalars of a run tell that all terms taught, and that they faded."""
    weights = read_checkpoint(trained / "epoch_3.pth")["state_dict"]
    plain = apis.build(apis.load_config(PLAIN, {"data_root": f"{data}/", **SMALL}))
    extra = set(weights) - set(plain.state_dict())
    assert {key.split(".adapters.")[0] for key in extra} == {"guide.terms.maps", "guide.terms.inner"}
    (scalars,) = trained.glob("*/vis_data/scalars.json")
    rows = [eval(line, {"NaN": float("nan")}) for line in scalars.read_text().splitlines() if "guide.loss_maps" in line]
    names = {"guide.loss_maps", "guide.loss_inner", "guide.loss_one_to_many_cls", "guide.loss_one_to_many_box"}
    assert names <= rows[0].keys() and all(rows[0][name] > 0 for name in names)
    assert all(rows[-1][name] < rows[0][name] for name in names)


@pytest.mark.slow
def test_resumed_it_is_the_uninterrupted_training(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    """Without ``fade``: all terms still teach, and the masks of one are random."""
    options: dict[str, Any] = {"teacher_weights": str(teacher), "model.guide.fade": None, "max_epochs": 2}
    whole = train(student, data, tmp_path / "whole", **options)
    (tmp_path / "resumed").mkdir()
    shutil.copy(whole / "epoch_1.pth", tmp_path / "resumed")
    train(student, data, tmp_path / "resumed", resume="auto", **options)
    expected, resumed = (
        read_checkpoint(tmp_path / name / "epoch_2.pth")["state_dict"] for name in ("whole", "resumed")
    )
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in expected.items())


def test_the_checkpoint_is_that_of_a_plain_model(trained: Path, data: Path, tmp_path: Path) -> None:
    """Without the guide's config, and without the teacher's files: equal outputs, test, prediction and export."""
    options = {"data_root": f"{data}/", **SMALL}
    checkpoint, images = trained / "epoch_3.pth", torch.rand(1, 3, 64, 64)
    plain_cfg = apis.load_config(PLAIN, options)
    plain, distilled = apis.load(plain_cfg, checkpoint), apis.load(trained / "student.py", checkpoint)
    assert architecture_digest(plain) == architecture_digest(distilled)
    assert plain.guide is None and distilled.guide is not None
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(plain.infer(images)[:3], distilled.infer(images)[:3]))
    config = tmp_path / "plain.py"
    Config(plain_cfg.to_dict(), format_python_code=False).dump(str(config))
    assert main(["test", str(config), str(checkpoint), "--skip-check"]) == 0
    pictures = sorted(data.rglob("images/**/*.*"))
    arguments = ["predict", str(checkpoint), str(pictures[0]), "--config", str(config)]
    assert main([*arguments, "--out", str(tmp_path / "drawn")]) == 0


def test_a_student_may_be_compressed_itself(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    step = dict(type="LowRank", layers=["neck.*"], ratio=0.5)
    options: dict[str, Any] = {"max_epochs": 1, "teacher_weights": str(teacher), "model_transforms": [step]}
    checkpoint = train(student, data, tmp_path, **options) / "epoch_1.pth"
    plan = read_checkpoint(checkpoint)["meta"]["compression_plan"]
    assert plan["dense"] == architecture_digest(apis.build(plain_config(data)))
    model = apis.load(plain_config(data), checkpoint)
    assert model.guide is None and any(name.endswith(".reduce") for name, _ in model.named_modules())


@pytest.mark.slow
def test_it_exports_the_same_file(trained: Path, data: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    config = trained / "student.py"  # with its guide
    arguments = ["export", str(config), str(trained / "epoch_3.pth"), "--out", str(tmp_path), "--num-images", "2"]
    assert main(arguments) == 0  # verified, or refused
    weights = [x.dims for x in onnx.load(str(tmp_path / "model.onnx")).graph.initializer if len(x.dims) == 4]
    model = apis.fuse(apis.load(plain_config(data), trained / "epoch_3.pth"))
    assert sorted(map(tuple, weights)) == sorted(tuple(p.shape) for p in model.parameters() if p.dim() == 4)


def plain_config(data: Path) -> Any:
    return apis.load_config(PLAIN, {"data_root": f"{data}/", **SMALL})


@pytest.mark.slow
def test_a_teacher_of_another_architecture_is_refused_before_the_first_step(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    content = read_checkpoint(teacher)
    content["meta"]["compression_plan"]["dense"] = "other"
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: its compression plan was made for another dense model"):
        train(student, data, tmp_path / "work", teacher_weights=str(tmp_path / "other.pth"), max_epochs=1)
    assert not list(tmp_path.rglob("epoch_*.pth"))


@pytest.mark.slow
def test_two_processes_train_one_model(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    """The last epoch has a weight of 0, and gradients for the same parameters all the same."""
    options = {"data_root": f"{data}/", "max_epochs": 2, **SMALL, "train_dataloader.batch_size": 2}
    cfg = apis.load_config(student, {**options, "teacher_weights": str(teacher)})
    cfg.work_dir = str(tmp_path / "run")
    cfg.dump(str(tmp_path / "two.py"))
    words = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "efftasks", "train"]
    words += [str(tmp_path / "two.py"), "--launcher", "pytorch", "--skip-check"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-9000:]
    assert any(key.startswith("guide.terms") for key in read_checkpoint(tmp_path / "run/epoch_2.pth")["state_dict"])
