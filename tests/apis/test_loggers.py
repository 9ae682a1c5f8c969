"""Loggers that a training is given beside those of its config, and what is sent to them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import tensor

from efftasks.apis import validation_pictures
from efftasks.apis.loggers import add_loggers
from efftasks.apis.validation_pictures import ValidationPictures
from efftasks.cli.logger_options import NAMES
from efftasks.cli.main import main
from efftasks.engine.loggers.config_values import flat, portable
from efftasks.engine.loggers.run_ids import FILE, read_run_id, write_run_id
from efftasks.engine.loggers.tracker import Tracker
from efftasks.structures.errors import UserError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All packages seem to be installed."""
    monkeypatch.setattr(Tracker, "check_installed", classmethod(lambda cls: None))


def types(cfg: Config) -> list[str]:
    return [backend["type"] for backend in cfg.visualizer.vis_backends]


def config(*names: str) -> Config:
    return Config(dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type=name) for name in names])))


@pytest.mark.usefixtures("installed")
def test_loggers_are_added_to_those_of_the_config() -> None:
    cfg = config("LocalVisBackend", "TensorboardVisBackend", "MyBackend")
    add_loggers(cfg, ["mlflow", "tensorboard", "mlflow"], project="cells", group="mine")
    assert types(cfg) == ["LocalVisBackend", "TensorboardVisBackend", "MyBackend", "MlflowTracker"]
    assert cfg.visualizer.vis_backends[-1] == dict(type="MlflowTracker", project="cells", group="mine")


@pytest.mark.usefixtures("installed")
def test_json_lines_are_always_written() -> None:
    cfg = Config(dict())
    add_loggers(cfg, NAMES)
    expected = ["LocalVisBackend", "TensorboardVisBackend", "WandbTracker", "MlflowTracker", "ClearmlTracker"]
    assert types(cfg) == expected


def test_project_without_a_tracker() -> None:
    with pytest.raises(UserError, match="--logger-project: got 'cells' without a logger that has projects"):
        add_loggers(config("LocalVisBackend"), ["tensorboard"], project="cells")


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="loggers: got 'neptune', expected some of tensorboard, wandb, mlflow, clearml"):
        add_loggers(config(), ["neptune"])


def test_missing_package_is_an_error_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    name = "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128"
    assert main(["train", name, "--work-dir", str(tmp_path / "mine"), "--logger", "wandb"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'efftasks[wandb]'" in error
    assert not (tmp_path / "mine").exists()


def test_what_leaves_the_machine() -> None:
    values = portable(
        dict(
            data_root="/home/someone/data/mine/",
            load_from="C:\\Users\\someone\\best.pth",
            address="https://me:secret@host:5000/x",
            api_key="k",
            wandb=dict(password="p", hub_token="t", token=None),
            model=dict(tokens=4, sizes=(1, 2), layers=[dict(type="A"), dict(type="B")], empty={}),
            classes=["a/b", "c"],
            linked=dict(record=1),
        )
    )
    assert values["data_root"] == "data/mine/"
    assert values["load_from"] == "someone/best.pth"
    assert values["address"] == "https://host:5000/x"
    assert values["api_key"] == "(hidden)"
    assert values["wandb"] == dict(password="(hidden)", hub_token="(hidden)", token=None)
    assert values["classes"] == ["a/b", "c"]
    assert "linked" not in values
    assert dict(flat(dict(model=values["model"]))) == {
        "model.tokens": "4",
        "model.sizes": "[1, 2]",
        "model.layers.0.type": "A",
        "model.layers.1.type": "B",
        "model.empty": "{}",
    }


@pytest.mark.parametrize(
    "key",
    [
        *(
            "Authorization",
            "X-Auth-Token",
            "authToken",
            "clientSecret",
            "hf-token",
            "private_key",
            "aws_secret_access_key",
        ),
        *("pwd", "passphrase", "apiKey", "APIKEY", "account_key", "auth"),
    ],
)
def test_secrets_are_hidden_however_their_keys_are_written(key: str) -> None:
    for value in ("s3cr3t", 1234, ["s3cr3t"], dict(x="s3cr3t")):
        assert portable(dict(backend_args=dict(headers={key: value}))) == dict(
            backend_args=dict(headers={key: "(hidden)"})
        )


@pytest.mark.parametrize("key", ["cls_token", "tokens", "author", "keys", "keypoints", "monkey"])
def test_other_keys_and_switches_are_not_hidden(key: str) -> None:
    assert portable({key: True}) == {key: True}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://host/best.pth?X-Amz-Signature=abc&x=1", "https://host/best.pth?(hidden)"),
        ("https://host/best.pth#token=abc", "https://host/best.pth?(hidden)"),
        ("s3://KEY:SECRET@bucket/best.pth", "s3://bucket/best.pth"),
        ("file:///home/someone/data/best.pth", "data/best.pth"),
        ("https://host/best.pth", "https://host/best.pth"),
        ("is it a question? no", "is it a question? no"),
    ],
)
def test_keys_in_addresses_are_hidden(address: str, expected: str) -> None:
    assert portable(dict(load_from=address)) == dict(load_from=expected)


def test_run_ids_survive_and_a_broken_file_does_not_matter(tmp_path: Path) -> None:
    assert read_run_id(tmp_path, "wandb") is None
    write_run_id(tmp_path, "wandb", "a")
    write_run_id(tmp_path, "mlflow", "b")
    write_run_id(tmp_path, "wandb", "c")
    assert [read_run_id(tmp_path, name) for name in ("wandb", "mlflow", "clearml")] == ["c", "b", None]
    (tmp_path / FILE).write_text("[1")
    assert read_run_id(tmp_path, "wandb") is None


class Validation:
    """A runner with a validation over nine images, in batches of two; keeps pictures and warnings."""

    def __init__(self, folder: Path, max_epochs: int) -> None:
        self.pictures: list[tuple[str, np.ndarray, int]] = []
        self.warnings: list[str] = []
        self.visualizer = SimpleNamespace(add_image=lambda name, image, step: self.pictures.append((name, image, step)))
        self.logger = SimpleNamespace(warning=self.warnings.append)
        files = [str(folder / f"{i}.png") for i in range(9)]
        for i, file in enumerate(files):
            cv2.imwrite(file, np.full((500, 1000, 3), 25 * i, np.uint8))
        infos = [dict(img_path=file, height=500, width=1000, instances=[]) for file in files]
        dataset = SimpleNamespace(metainfo=dict(classes=("a",)), get_data_info=lambda i: infos[i])
        self.val_dataloader = SimpleNamespace(sampler=range(9), dataset=dataset)
        self.epoch = 0
        self.train_loop: Any = SimpleNamespace(val_interval=1, max_epochs=max_epochs)

    def run(self, hook: ValidationPictures, epoch: int) -> None:
        self.epoch = self.train_loop.epoch = epoch
        hook.before_val_epoch(self)
        fields = dict(bboxes=tensor([[1.0, 1, 9, 9]]), scores=tensor([0.9]), labels=tensor([0]))
        sample = {"pred_instances": InstanceData(**fields)}
        for start in range(0, 9, 2):
            hook.after_val_iter(self, start // 2, outputs=[Sample(sample) for _ in range(min(2, 9 - start))])


class Sample(dict):
    """A data sample: parts are attributes."""

    __getattr__ = dict.__getitem__


@pytest.fixture
def by_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of the runner below is one of epochs."""
    monkeypatch.setattr(validation_pictures, "EpochBasedTrainLoop", SimpleNamespace)


@pytest.mark.usefixtures("by_epoch")
def test_pictures_of_the_same_images_at_ten_validations_and_the_last(tmp_path: Path) -> None:
    runner, hook = Validation(tmp_path, max_epochs=25), ValidationPictures()
    for epoch in range(1, 26):
        runner.run(hook, epoch)
    assert runner.warnings == []
    assert sorted({step for _, _, step in runner.pictures}) == [3, 6, 9, 12, 15, 18, 21, 24, 25]
    first, last = ([picture for picture in runner.pictures if picture[2] == step] for step in (3, 25))
    assert [name for name, _, _ in first] == [f"validation_{i}" for i in (1, 2, 3, 4)]
    shades = [int(np.median(image)) for _, image, _ in first]
    assert shades == [25 * i for i in (0, 2, 5, 8)]  # spread over the nine images
    assert [image.shape for _, image, _ in first] == [(200, 800, 3)] * 4
    assert all((a[1] == b[1]).all() for a, b in zip(first, last, strict=True))
    left, right = first[0][1][:, :398], first[0][1][:, 402:]
    assert left.max() == 0  # no object is annotated
    assert right.max() > 0


@pytest.mark.usefixtures("by_epoch")
def test_picture_that_fails_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise OSError("no such file")

    monkeypatch.setattr(validation_pictures, "comparison", fail)
    runner, hook = Validation(tmp_path, max_epochs=3), ValidationPictures()
    for epoch in (1, 2, 3):
        runner.run(hook, epoch)
    assert runner.warnings == ["no more pictures of validations: OSError: no such file"]
    assert runner.pictures == []
