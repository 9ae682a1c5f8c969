"""From a name to boxes: a small checkpoint with the authors' names, from a server on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save

import efftasks.apis.zoo
from efftasks import Predictor
from efftasks.apis import load, published_artifact, published_checkpoint
from efftasks.cli.main import main
from efftasks.models.backbones.mobilenetv4 import MobileNetV4
from efftasks.structures.errors import UserError, WorkError
from efftasks.zoo.cache import artifact_file, folder_of
from efftasks.zoo.catalog import catalog
from efftasks.zoo.fetching import fetch

NAME = "deimv2-atto-coco"
CONFIG = catalog()[NAME].config
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def theirs(authors: Any) -> bytes:
    """As the authors have it on the Hub: what can be computed, and copies of the shared box head, are left out."""
    tensors = authors.tensors(authors.record("deimv2-atto"))
    kept = authors.shared_index(authors.record("deimv2-atto"))
    for name in list(tensors):
        copy = ".dec_bbox_head." in name and int(name.split(".")[2]) != kept
        if copy or name in ("decoder.up", "decoder.reg_scale"):
            del tensors[name]
    return save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})


@pytest.fixture(autouse=True)
def published(server: Any, theirs: bytes) -> None:
    server.files[f"{NAME}.safetensors"] = theirs


def test_a_checkpoint_is_fetched_once_and_gives_the_authors_outputs(server: Any, authors: Any) -> None:
    path = published_checkpoint(NAME)
    assert published_checkpoint(f"zoo:{NAME}") == path
    assert server.ranges == [None]
    assert sorted(file.name for file in path.parent.iterdir()) == [f"{NAME}.pth"]

    record = authors.record("deimv2-atto")
    model = load(CONFIG, path)
    assert model.dataset_meta["classes"][0] == "person" and model.dataset_meta["category_ids"][-1] == 90
    model.head.selection.num_queries = record["num_queries"]
    with torch.no_grad():
        raw = model(authors.image(record), mode="tensor")
    torch.testing.assert_close(raw.logits[0], torch.tensor(record["logits"]), atol=1e-4, rtol=0)


def test_two_at_a_time_fetch_once(server: Any) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(published_checkpoint(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 2 and server.ranges == [None]


def test_an_interrupted_fetch_goes_on(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults = [100_000, 404]
    monkeypatch.setattr("efftasks.apis.zoo.fetch", partial(fetch, wait=lambda seconds: None))
    with pytest.raises(WorkError, match=r"answers HTTP 404"):
        published_checkpoint(NAME)
    assert published_checkpoint(NAME).is_file()
    assert server.ranges[-1] == "bytes=100000-"


def test_another_file_than_before_is_refused_and_accepted_on_request(
    server: Any, authors: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    published_checkpoint(NAME)
    assert main(["zoo", "remove", NAME]) == 0
    assert f"{NAME}: " in capsys.readouterr().out
    tensors = authors.tensors(authors.record("deimv2-atto"))
    name = "decoder.enc_score_head.bias"
    changed = {**tensors, name: tensors[name] + 1}
    server.files[f"{NAME}.safetensors"] = save({key: value.contiguous().clone() for key, value in changed.items()})
    assert main(["zoo", "get", NAME]) == 1
    assert "from an earlier fetch, so it was removed" in capsys.readouterr().err
    assert list(folder_of(catalog()[NAME]).iterdir()) == []
    assert main(["zoo", "get", NAME, "--new-digest"]) == 0


def test_a_new_digest_replaces_what_is_here_once_it_has_come(server: Any, theirs: bytes) -> None:
    path = published_checkpoint(NAME)
    before = path.read_bytes()
    artifact = artifact_file(catalog()[NAME])
    for file in (artifact, artifact.with_suffix(".json")):  # of the earlier checkpoint
        file.touch()
    server.files.clear()
    assert main(["zoo", "get", NAME, "--new-digest"]) == 1
    assert path.read_bytes() == before and artifact.with_suffix(".json").is_file()
    server.files[f"{NAME}.safetensors"] = theirs
    server.ranges.clear()
    assert main(["zoo", "get", NAME, "--new-digest"]) == 0
    assert server.ranges == [None] and path.is_file() and not artifact.with_suffix(".json").exists()


def test_a_backbone_is_no_checkpoint_to_start_from(server: Any) -> None:
    with pytest.raises(UserError, match="got a backbone, expected a model"):
        efftasks.apis.zoo.resolve_names(Config(dict(model={}, load_from="zoo:starnet-s1-in1k")))
    with pytest.raises(UserError, match="got a backbone, expected a model"):
        efftasks.apis.zoo.config_and_checkpoint("mine.py", "zoo:starnet-s1-in1k")
    assert server.ranges == []


def test_a_missing_package_is_the_answer_to_the_calling_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "efftasks.apis.zoo", None)
    assert main(["zoo", "get", NAME, "--json"]) == 2
    assert "efftasks.apis.zoo" in json.loads(capsys.readouterr().out)["error"]


def test_a_file_of_something_else(server: Any) -> None:
    server.files[f"{NAME}.safetensors"] = save({"layer.weight": torch.zeros(2)})
    with pytest.raises(
        WorkError, match=r"is not what was expected, so it was removed: .*begins with layer\.weight"
    ) as info:
        published_checkpoint(NAME)
    assert server.url in str(info.value)
    assert list(folder_of(catalog()[NAME]).iterdir()) == []
    assert not folder_of(catalog()[NAME]).with_suffix(".sha256").exists()


def test_training_starts_from_a_name(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def stop(cfg: Any) -> Any:
        seen.update(load_from=cfg.load_from)
        raise KeyboardInterrupt

    monkeypatch.setattr("efftasks.apis.training.build_runner", stop)
    options = [f"load_from=zoo:{NAME}", "classes=cat,dog", f"data_root={tmp_path}"]
    config = "deimv2-pico_hgnetv2-b0_1xb16-60e_custom-640_finetune"
    line = ["train", config, "--work-dir", str(tmp_path / "run"), "--skip-check", "--cfg-options", *options]
    assert main(line) == 130
    assert seen["load_from"] == str(published_checkpoint(NAME))


def test_a_backbone_starts_from_a_name(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """With the names of timm's file, as tests/models/backbones has them; it is kept as it is."""
    net = MobileNetV4(variant="conv-s")
    own = {key: value + 1 if value.is_floating_point() else value for key, value in net.state_dict().items()}
    server.files["mobilenetv4-conv-s-in1k.safetensors"] = save({key: value.contiguous() for key, value in own.items()})
    cfg = Config(dict(model=dict(backbone=dict(weights="zoo:mobilenetv4-conv-s-in1k")), load_from=f"zoo:{NAME}"))
    efftasks.apis.zoo.resolve_names(cfg)
    assert cfg.load_from == str(published_checkpoint(NAME))
    loaded = MobileNetV4(variant="conv-s", weights=cfg.model.backbone.weights).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in own.items())
    assert main(["predict", "mobilenetv4-conv-s-in1k", "photo.jpg"]) == 2
    assert "got a backbone, expected a model; a training takes it as" in capsys.readouterr().err
    server.files["hgnetv2-b0-in1k.safetensors"] = server.files["mobilenetv4-conv-s-in1k.safetensors"]
    with pytest.raises(WorkError, match="no tensor fits HGNetV2"):
        published_checkpoint("hgnetv2-b0-in1k")


def test_test_and_export_take_config_and_weights_of_a_name(server: Any) -> None:
    both = efftasks.apis.zoo.config_and_checkpoint
    assert both(NAME, None) == (CONFIG, str(published_checkpoint(NAME)))
    assert both("mine.py", f"zoo:{NAME}") == ("mine.py", str(published_checkpoint(NAME)))
    assert both("mine.py", "best.pth") == ("mine.py", "best.pth")
    assert both(NAME, "model.onnx") == (CONFIG, "model.onnx")
    with pytest.raises(UserError, match=r"mine\.py: got it alone, expected a checkpoint after the config"):
        both("mine.py", None)


def test_offline_and_unknown_names_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EFFTASKS_CACHE", str(tmp_path))
    monkeypatch.setenv("EFFTASKS_ZOO_MIRROR", "http://127.0.0.1:1")
    for line in (["zoo", "get", NAME, "--json"], ["zoo", "--json", "get", NAME]):
        assert main(line) == 1
        assert "127.0.0.1:1 cannot be reached" in json.loads(capsys.readouterr().out)["error"]
    assert main(["predict", "dfine-n-coc", "photo.jpg", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'dfine-n-coco'?" in error


@pytest.mark.slow
def test_predictor_from_a_name_without_pytorch(server: Any, tmp_path: Path) -> None:
    """Fetched, converted, exported and verified by another process, once; the second time nothing is fetched."""
    code = (
        "import sys, numpy; from efftasks import Predictor\n"
        f"(p,) = Predictor({NAME!r})(numpy.full((48, 64, 3), 90, numpy.uint8))\n"
        "print(len(p), 'torch' in sys.modules, p.classes[0])"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "300 False person\n"
    assert server.ranges == [None]
    artifact = published_artifact(NAME)
    spec = json.loads(artifact.with_suffix(".json").read_text())
    assert spec["verify"]["passed"] and spec["verify"]["images"] >= 4
    (prediction,) = Predictor(artifact)(np.full((48, 64, 3), 90, np.uint8))
    assert prediction.category_ids is not None and prediction.category_ids[-1] == 90


@pytest.mark.slow
def test_the_error_of_the_other_process_is_the_callers(server: Any) -> None:
    server.files.clear()
    with pytest.raises(WorkError, match="answers HTTP 404"):
        Predictor(NAME)
