"""The page in headless Chromium: what it shows is what ``Predictor`` gives.

The runtime is the cached one of the user, or the unpacked npm package that ``EFFTASKS_TEST_ORT_WEB`` names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from efftasks import Predictor
from efftasks.apis.verifying_page import verify_page
from efftasks.export.exporters.base import PageOptions
from efftasks.export.exporters.table import EXPORTERS
from efftasks.export.page.browser import Browser, has_browser, serve, start_browser
from efftasks.export.page.npm_package import ORT_WEB, cached
from efftasks.export.page.opened import OpenedPage, Shown
from efftasks.ops.topk import top_pairs
from efftasks.structures.spec import ArtifactFile, ArtifactSpec, InputSpec, OutputSpec

pytestmark = pytest.mark.slow

SIZE, COUNT = (96, 128), 12
ORIENTATION = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # 6: turned by 90 degrees


class Everything(nn.Module):
    """Boxes with masks and keypoints, and a label map: all depend on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.cells, self.fine = nn.Conv2d(3, 3 + 4 + 6, 16, 16), nn.Conv2d(3, 4, 4, 4)
        nn.init.normal_(self.cells.weight, std=0.02, generator=generator)
        nn.init.normal_(self.fine.weight, std=0.1, generator=generator)

    def infer(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, boxes, points = self.cells(images).flatten(2).transpose(1, 2).split([3, 4, 6], -1)
        best, labels, index = top_pairs(logits, COUNT)
        boxes, points = (value.gather(1, index[..., None].expand(-1, -1, value.shape[2])) for value in (boxes, points))
        corners, sides = (80 * boxes.sigmoid()).split([2, 2], -1)  # some end in the padding
        keypoints = torch.cat(
            [90 * points[..., :4].sigmoid().unflatten(-1, (2, 2)), points[..., 4:, None].sigmoid()], -1
        )
        fine = self.fine(images)
        masks = fine[:, :1] + 0.2 * best[..., None, None]
        segmentation = fine[:, 1:].repeat_interleave(4, 2).repeat_interleave(4, 3).argmax(1).to(torch.uint8)
        return torch.cat([corners, corners + 9 + sides], -1), best.sigmoid(), labels, masks, keypoints, segmentation


def description(**fields: Any) -> ArtifactSpec:
    height, width = SIZE
    return ArtifactSpec(
        task="multi-task",
        classes=("disc", "triangle", "star"),
        category_ids=(1, 2, 3),
        input=InputSpec("images", *SIZE, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), **fields),
        outputs=(
            OutputSpec("boxes", ("N", COUNT, 4), "float32", ""),
            OutputSpec("scores", ("N", COUNT), "float32", ""),
            OutputSpec("labels", ("N", COUNT), "int64", ""),
            OutputSpec("masks", ("N", COUNT, height // 4, width // 4), "float32", ""),
            OutputSpec("keypoints", ("N", COUNT, 2, 3), "float32", ""),
            OutputSpec("segmentation", ("N", height, width), "uint8", ""),
        ),
        keypoints=("head", "tail"),
        skeleton=((0, 1),),
        semantic_classes=("sky", "road", "tree"),
        verify={"passed": True, "images": 3},
        backend="web",
    )


@pytest.fixture(scope="module")
def runtime() -> PageOptions:
    """Where the runtime is; tests have no network."""
    named = os.environ.get("EFFTASKS_TEST_ORT_WEB")
    if named:
        return PageOptions(Path(named))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "efftasks")
    if cached(cache, ORT_WEB) is None:
        pytest.skip(f"{ORT_WEB} is neither cached nor named by EFFTASKS_TEST_ORT_WEB")
    return PageOptions()


@pytest.fixture(scope="module")
def write_page(runtime: PageOptions) -> Callable[..., Path]:
    """Exports the network into a folder, with its page."""

    def write(folder: Path, single_file: bool = False, **fields: Any) -> Path:
        exporter, spec = EXPORTERS["web"], description(**fields)
        path = exporter.export(Everything().eval(), spec, folder / "model.onnx", opset=18)
        spec = replace(spec, files=(ArtifactFile.of(path),))
        spec.save(folder / "model.json")
        assert exporter.page is not None
        return exporter.page.write(path, spec, runtime._replace(single_file=single_file))

    return write


@pytest.fixture(scope="module")
def browser(runtime: PageOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not has_browser():
        pytest.skip("Chromium and ChromeDriver are not installed")
    with start_browser(tmp_path_factory.mktemp("profile"), ("--use-fake-device-for-media-stream",)) as browser:
        yield browser


@pytest.fixture(scope="module")
def served(write_page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a page, and its address."""
    folder = tmp_path_factory.mktemp("page")
    write_page(folder)
    with serve(folder) as address:
        yield folder, address


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the kinds that decoders treat differently."""
    folder = tmp_path_factory.mktemp("pictures")
    small = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    image = cv2.resize(small, (213, 161), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "color.png"), image)
    cv2.imwrite(str(folder / "gray.png"), image[..., 0])
    low_bits = np.random.default_rng(1).integers(0, 256, image.shape, np.uint16)
    cv2.imwrite(str(folder / "deep.png"), image.astype(np.uint16) * 256 + low_bits)
    cv2.imwrite(str(folder / "tall.png"), np.ascontiguousarray(image.transpose(1, 0, 2)))
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    (folder / "photo.jpg").write_bytes(jpeg)
    segment = b"\xff\xe1" + (len(ORIENTATION) + 2).to_bytes(2, "big") + ORIENTATION
    (folder / "turned.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    return {path.stem: path for path in folder.iterdir()}


def check_same(page: Shown, model: Predictor, picture: Path, pixels: float) -> None:
    """That the page shows a prediction, with boxes and keypoints within some pixels."""
    (expected,) = model(picture)
    assert np.array_equal(page.labels, expected.labels)
    assert np.abs(page.scores - expected.scores).max() < 0.02
    assert np.abs(page.boxes - expected.boxes).max() < pixels
    assert expected.keypoints is not None and expected.masks is not None and expected.segmentation is not None
    assert page.keypoints is not None and page.mask_areas is not None and page.milliseconds > 0
    assert np.abs(page.keypoints[..., :2] - expected.keypoints[..., :2]).max() < pixels
    areas, total = expected.masks.sum((1, 2)), expected.segmentation.size
    assert (areas > 0).sum() > 3
    assert np.abs(page.mask_areas - areas).max() <= 0.01 * total
    counts = np.unique(expected.segmentation, return_counts=True)[1]
    assert page.class_areas.shape == counts.shape and np.abs(page.class_areas - counts).max() <= 0.01 * total


@pytest.mark.parametrize("name", ["color", "gray", "tall", "deep", "photo", "turned"])
def test_the_page_shows_what_the_runtime_predicts(browser, served, pictures, name):
    folder, address = served
    page = OpenedPage(browser, address)
    # Decoders of JPEG, and roundings of 16 bits, differ in the last bit of some pixels.
    pixels = 1e-3 if name in ("color", "gray", "tall") else 0.5
    check_same(page.show(pictures[name]), Predictor(folder / "model.onnx"), pictures[name], pixels)


def test_a_stretched_input_of_channels_in_another_order(browser, write_page, pictures, tmp_path):
    write_page(tmp_path, resize="stretch", color="BGR")
    with serve(tmp_path) as address:
        page = OpenedPage(browser, address)
        check_same(page.show(pictures["color"]), Predictor(tmp_path / "model.onnx"), pictures["color"], 1e-3)


def test_a_single_file_is_opened_without_a_server(browser, write_page, pictures, tmp_path):
    page = write_page(tmp_path, single_file=True)
    opened = OpenedPage(browser, page.as_uri())
    check_same(opened.show(pictures["color"]), Predictor(tmp_path / "model.onnx"), pictures["color"], 1e-3)


def test_a_page_is_verified_against_the_file_that_it_runs(browser, write_page, pictures, tmp_path):
    """Against another one it fails: its boxes are other ones, or its masks and label maps."""
    page = write_page(tmp_path / "page")
    images = [cv2.imread(str(pictures[name])) for name in ("color", "tall")]
    artifact = tmp_path / "page" / "model.onnx"
    report = verify_page(page, artifact, "onnxruntime", images)
    assert report.passed and report.objects is not None and report.max_area_error == 0 and report.milliseconds > 0
    assert (report.images, report.objects.detections) == (2, 2 * COUNT) and report.objects.max_box_error_px < 1e-3
    write_page(tmp_path / "other", color="BGR")
    other = verify_page(page, tmp_path / "other" / "model.onnx", "onnxruntime", images)
    assert not other.passed and other.objects is not None and not other.objects.passed and other.max_area_error > 0.01


def test_confidence_hides_objects(browser, served, pictures):
    _, address = served
    page = OpenedPage(browser, address).show(pictures["color"])
    browser.press("#threshold", "\ue014" * 78)  # the right arrow
    threshold = float(browser.text("#threshold-value"))
    assert threshold == pytest.approx(0.78)
    rows = browser.run('return document.querySelectorAll("#rows tr").length')
    assert rows == (page.scores >= threshold).sum() < len(page.scores)
    assert browser.text("#summary").startswith(f"{rows} object")


def test_the_figures_of_the_sidecar_are_shown(browser, served):
    folder, address = served
    OpenedPage(browser, address)
    figures = browser.text("#figures")
    assert ArtifactFile.of(folder / "model.onnx").sha256 in figures
    assert f"ONNX Runtime Web {ORT_WEB.version}" in figures and "3 images" in figures


def test_the_camera_is_used_and_let_go(browser, served):
    _, address = served
    OpenedPage(browser, address)
    browser.click("#camera")
    browser.wait_for('!document.getElementById("view").hidden')
    assert browser.text("#camera") == "Stop the camera" and browser.text("#time-run").endswith(" ms")
    browser.click("#camera")
    assert browser.text("#camera") == "Use the camera"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "notes.png is empty."),
        (b"text", "is not a picture that"),
        (cv2.imencode(".png", np.zeros((8, 20000, 3), np.uint8))[1].tobytes(), "has 20000 × 8 pixels; a browser takes"),
    ],
    ids=["empty", "text", "panorama"],
)
def test_a_wrong_file_is_named(browser, served, tmp_path, content, message):
    _, address = served
    OpenedPage(browser, address)
    wrong = tmp_path / "notes.png"
    wrong.write_bytes(content)
    browser.choose_file("#file", wrong)
    browser.wait_for('!document.getElementById("message").hidden')
    assert message in browser.text("#message")
    assert browser.run("return document.body.dataset.state") == "ready"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ort/ort-wasm-simd-threaded.wasm", "ONNX Runtime Web failed"),
        ("model.onnx", "model.onnx has 3 bytes, model.json states"),
        ("model.json", "is not valid JSON"),
    ],
)
def test_a_broken_part_is_named(browser, write_page, tmp_path, name, message):
    write_page(tmp_path)
    (tmp_path / name).write_bytes(b"???")
    with serve(tmp_path) as address:
        browser.open(address)
        browser.wait_for('document.body.dataset.state === "failed"')
        assert message in browser.text("#message")


def test_a_folder_opened_as_a_file_says_what_to_type(browser, served):
    folder, _ = served
    browser.open((folder / "index.html").as_uri())
    assert "python -m http.server" in browser.text("#message")
    assert browser.run('return document.getElementById("message").hidden') is False
