"""Models go to a server that answers as the Hub does, through the Hub's client, and come back the same."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from efftasks import Predictor
from efftasks.apis.hub import pull, push
from efftasks.structures.errors import UserError, WorkError
from efftasks.structures.spec import ArtifactFile, ArtifactSpec

pytest.importorskip("huggingface_hub")

REPO = "someone/cells"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = "dfine-n_hgnetv2-b0_8xb16-160e_coco-640"


class Hub(ThreadingHTTPServer):
    """One repository, and what the client asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.created: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None: ...

    def _answer(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, data: Any, status: int = 200) -> None:
        self._answer(json.dumps(data).encode(), {"Content-Type": "application/json"}, status)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        if path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._json({"url": f"{self.server.url}/{REPO}", "name": REPO})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{self.server.url}/{REPO}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._json({"error": "no such page"}, 404)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        files = self.server.files
        if path.startswith(f"/api/models/{REPO}/tree/"):
            self._json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
            )
        elif path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        elif path.startswith(f"/{REPO}/resolve/{COMMIT}/") and path.rsplit("/", 1)[1] in files:
            content = files[path.rsplit("/", 1)[1]]
            self._answer(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(b"", {"X-Error-Code": "RepoNotFound"}, 404)

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(write_sized: Callable[..., Path], tmp_path: Path) -> Path:
    """An exported file without its sidecar, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return write_sized(tmp_path / "out" / "model.onnx")


def with_sidecar(path: Path, **changes: Any) -> Path:
    """The file, with a sidecar that states its digest."""
    spec = replace(Predictor(path).spec, files=(ArtifactFile.of(path),), **changes)
    spec.save(path.with_suffix(".json"))
    return path


def test_round_trip(hub: Hub, model: Path, tmp_path: Path) -> None:
    verify = {"passed": True, "images": 16, "metrics": {"artifact": {"coco/bbox_mAP": 0.5945}}}
    with_sidecar(model, source={"config": CONFIG}, verify=verify)
    weights = tmp_path / "best.pth"
    torch.save({"state_dict": {"x": torch.ones(2)}}, weights)
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps([{"backend": "onnxruntime", "p50 ms": 12.3, "environment": {"cpu": "EPYC"}}]))

    address = push(model.parent, REPO, weights, None, bench, "apache-2.0", private=True, endpoint=hub.url)
    assert address == f"{hub.url}/{REPO}/commit/{COMMIT}"
    assert hub.created["name"] == "cells" and hub.created["organization"] == "someone"
    assert sorted(hub.files) == ["README.md", "best.pth", "config.py", "model.json", "model.onnx"]
    assert hub.files["model.onnx"] == model.read_bytes() and hub.files["best.pth"] == weights.read_bytes()

    card = hub.files["README.md"].decode()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "efftasks" and metadata["license"] == "apache-2.0"
    assert metadata["pipeline_tag"] == "object-detection" and {"efftasks", "onnx"} <= set(metadata["tags"])
    for text in (
        "D-FINE: [D-FINE: Redefine Regression Task",
        "| coco/bbox_mAP | 0.5945 |",
        "| onnxruntime | 12.30 |",
        "cpu EPYC",
        "efftasks predict cells/model.onnx photo.jpg",
        "`best.pth` are the weights",
    ):
        assert text in card

    pulled = pull(REPO, tmp_path / "back", endpoint=hub.url)
    assert pulled == tmp_path / "back" / "model.onnx"
    image = np.full((40, 50, 3), 90, np.uint8)
    (ours,), (theirs,) = Predictor(model)(image), Predictor(pulled)(image)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_a_card_says_only_what_is_known(hub: Hub, model: Path) -> None:
    push(with_sidecar(model), REPO, endpoint=hub.url)
    card = hub.files["README.md"].decode()
    assert sorted(hub.files) == ["README.md", "model.json", "model.onnx"]
    assert not any(word in card for word in ("license", "## Method", "## Quality", "## Speed", "best.pth"))


def test_links_are_followed(hub: Hub, model: Path) -> None:
    """A pulled model lies in the Hub's cache as links to elsewhere."""
    content = model.read_bytes()
    model.rename(model.with_name("blob"))
    model.symlink_to("blob")
    push(with_sidecar(model), REPO, endpoint=hub.url)
    assert hub.files["model.onnx"] == content


def test_a_pulled_file_that_is_another_one(hub: Hub, model: Path, tmp_path: Path) -> None:
    push(with_sidecar(model), REPO, endpoint=hub.url)
    hub.files["model.onnx"] = hub.files["model.onnx"][:-1] + b"x"
    with pytest.raises(UserError, match=r"model\.onnx: .*SHA-256"):
        pull(REPO, tmp_path / "back", endpoint=hub.url)


def test_what_cannot_be_pushed(hub: Hub, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.json beside it"):
        push(model, REPO, endpoint=hub.url)
    with pytest.raises(UserError, match=r"got none, expected an exported file .*, or a folder with one"):
        push(tmp_path, REPO, endpoint=hub.url)
    with_sidecar(model)
    with pytest.raises(UserError, match=r"--checkpoint: none\.pth: no such file"):
        push(model, REPO, "none.pth", endpoint=hub.url)
    with pytest.raises(UserError, match=r"--config: got mine\.py alone, expected the checkpoint"):
        push(model, REPO, config="mine.py", endpoint=hub.url)
    bench = tmp_path / "bench.json"
    bench.write_text("{}")
    with pytest.raises(UserError, match=r"--benchmark: .*no rows, expected the \.json"):
        push(model, REPO, benchmark=bench, endpoint=hub.url)
    with pytest.raises(UserError, match="does not take this name, expected user/name"):
        push(model, "a/b/c", endpoint=hub.url)
    assert hub.asked == []


def test_no_such_repository_and_no_hub(hub: Hub, model: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="someone/else: the Hub cannot be used"):
        pull("someone/else", tmp_path / "back", endpoint=hub.url)
    with_sidecar(model)
    with pytest.raises(WorkError, match="someone/cells: the Hub cannot be used"):
        push(model, REPO, endpoint="http://127.0.0.1:1")


def test_description_is_unchanged(hub: Hub, model: Path, tmp_path: Path) -> None:
    spec = with_sidecar(model).with_suffix(".json")
    push(model, REPO, endpoint=hub.url)
    pulled = pull(REPO, tmp_path / "back", endpoint=hub.url)
    assert ArtifactSpec.load(pulled.with_suffix(".json")) == ArtifactSpec.load(spec)
