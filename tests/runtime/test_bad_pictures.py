"""Pictures that are broken, unusual or none: each is read as docs/bad_input.md says, or one sentence says why not."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks import Predictor
from efftasks.cli.main import main
from efftasks.datasets.transforms.loading import LoadImage
from efftasks.export.exporters.onnx import export_onnx
from efftasks.imaging.sources import load_image
from efftasks.structures.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "bad_input.md"
ORIENTATION = 0x0112  # the Exif tag
_RANDOM = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
COLORS = np.asarray(cv2.resize(_RANDOM, (90, 60), interpolation=cv2.INTER_CUBIC), np.uint8)  # BGR
PICTURE = Image.fromarray(COLORS[..., ::-1])
GRAY = np.asarray(PICTURE.convert("L"))
RGB = np.asarray(PICTURE)
ALPHA = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))
DEEP = (COLORS.astype(np.uint16) << 8) + 77


class Right(NamedTuple):
    """What is predicted like another picture."""

    make: Callable[[Path], Any]  # folder -> what is given to the predictor
    like: np.ndarray  # uint8 (H, W, 3) BGR
    tolerance: int = 0  # of its pixels


class Wrong(NamedTuple):
    """What is an error."""

    make: Callable[[Path], Any]
    message: str
    skipped: bool = True  # where that is asked for


def saved(name: str, image: Image.Image, **options: Any) -> Callable[[Path], Path]:
    """Writes a picture by PIL."""

    def make(folder: Path) -> Path:
        image.save(folder / name, **options)
        return folder / name

    return make


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def half(suffix: str, **options: Any) -> Callable[[Path], Path]:
    """Writes the first half of a file."""
    content = encoded_by_pil(PICTURE, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
    return written(f"half.{suffix}", content[: len(content) // 2])


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that states a size and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def without_adobe_marker(content: bytes) -> bytes:
    """A JPEG without the segment that says how its four channels are meant."""
    at = content.index(b"\xff\xee")
    return content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]


def ink(plain: bool) -> Callable[[Path], Path]:
    """Writes a CMYK JPEG: inverted with Adobe's marker, as programs for print do, or without the marker."""
    content = encoded_by_pil(PICTURE.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    return written("cmyk.jpg", without_adobe_marker(content) if plain else content)


def ink_of_ycck() -> bytes:
    """A CMYK JPEG whose marker says that its first three channels are YCbCr."""
    content = bytearray(encoded_by_pil(PICTURE.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    content[content.index(b"\xff\xee") + 15] = 2
    return bytes(content)


def encoded_by_pil(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def palette() -> Image.Image:
    return PICTURE.quantize(16)


def bgr(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])


def gray(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2)


def folder_of(**files: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "pictures").mkdir()
        for name, content in files.items():
            (folder / "pictures" / name.replace("_", ".")).write_bytes(content)
        return folder / "pictures"

    return make


def deep_name(folder: Path) -> Path:
    (folder / "Äpfel und 写真 [1]").mkdir()
    return saved("Äpfel und 写真 [1]/ein Bild, größer – *.png", PICTURE)(folder)


def folder_that_is_named_as_a_picture(folder: Path) -> Path:
    (folder / "pictures" / "a.png").mkdir(parents=True)
    PICTURE.save(folder / "pictures" / "b.png")
    return folder / "pictures"


TRANSPARENT = bytes([0, 128, 255, 7] * 4)  # of each color of a palette
FLOATS = COLORS.astype(np.float32)

PICTURES = encoded_by_pil(PICTURE, "MPO", save_all=True, append_images=[PICTURE.rotate(180)], quality=95)

# Key: the row of the page.
CASES: dict[str, list[Right | Wrong]] = {
    "empty file": [Wrong(written("a.jpg", b""), r"a\.jpg: the image is empty \(0 bytes\)")],
    "truncated file": [
        Wrong(half("jpg"), r"half\.jpg: the image is truncated or damaged \(JPEG without its end mark\)"),
        Wrong(half("jpg", progressive=True), r"half\.jpg: the image is truncated or damaged"),
        Wrong(half("png"), r"half\.png: the image is truncated or damaged \(PNG without its end chunk\)"),
        Wrong(half("webp"), r"half\.webp: the image is truncated or damaged \(WebP data shorter than"),
        Wrong(half("tif"), r"half\.tif: the image does not decode as an image"),
        Wrong(half("bmp"), r"half\.bmp: the image does not decode as an image"),
    ],
    "no image": [Wrong(written("a.jpg", b"a shopping list"), r"a\.jpg: the image does not decode as an image")],
    "HEIC, AVIF": [
        Wrong(
            written("a.jpg", b"\0\0\0\x18ftypheic" + bytes(40)),
            r"a\.jpg: the image is of the format HEIC, .* as JPEG or P",
        )
    ],
    "more than 2^30 pixels": [
        Wrong(written("a.png", png_of_size(2**16, 2**15)), r"a\.png: the image has more pixels than OpenCV decodes"),
        Wrong(written("a.png", png_of_size(2**21, 9)), r"a\.png: the image has 2097152 x 9 pixels, expected at most 1"),
    ],
    "16 bits per channel": [
        Right(written("a.png", encoded(".png", DEEP)), COLORS),
        Right(written("a.png", encoded(".png", DEEP[..., 1])), gray(COLORS[..., 1])),
        Right(written("a.tif", encoded(".tif", DEEP)), COLORS),
        Right(written("a.tif", encoded(".tif", DEEP[..., 1])), gray(COLORS[..., 1])),
    ],
    "floats, signed integers": [
        Wrong(
            saved("a.tif", Image.fromarray(GRAY / np.float32(255))), r"a\.tif: got values .* float, .*pixel_range=0,1"
        ),
        Wrong(saved("a.tif", Image.fromarray(GRAY.astype(np.int32))), r"a\.tif: got values .* with sign"),
    ],
    "palette": [
        Right(saved("a.png", palette()), bgr(palette())),
        Right(saved("a.png", palette(), transparency=3), bgr(palette())),
        Right(saved("a.png", palette(), transparency=TRANSPARENT), bgr(palette())),
        Right(saved("a.bmp", palette()), bgr(palette())),
    ],
    "transparency": [
        Right(saved("a.png", Image.fromarray(np.dstack([COLORS[..., ::-1], ALPHA]))), COLORS),
        Right(
            saved("a.webp", Image.fromarray(np.dstack([COLORS[..., ::-1], ALPHA])), lossless=True, exact=True), COLORS
        ),
        Right(saved("a.png", Image.fromarray(np.dstack([GRAY, ALPHA]))), gray(GRAY)),
    ],
    "one bit per pixel": [
        Right(saved("a.png", Image.fromarray(GRAY > 99)), gray(np.uint8(255) * (GRAY > 99))),
        Right(saved("a.tif", Image.fromarray(GRAY > 99)), gray(np.uint8(255) * (GRAY > 99))),
    ],
    "CMYK JPEG": [
        Right(ink(plain=False), COLORS, tolerance=6),
        Right(ink(plain=True), COLORS, tolerance=6),
        Right(written("a.jpg", ink_of_ycck()), bgr(Image.open(io.BytesIO(ink_of_ycck()))), tolerance=3),
    ],
    "JPEG of several pictures": [
        Right(written("a.jpg", PICTURES), bgr(Image.open(io.BytesIO(PICTURES))), tolerance=3),
        Right(
            written("a.jpg", encoded(".jpg", COLORS) + b"more"),
            cv2.imdecode(np.frombuffer(encoded(".jpg", COLORS), np.uint8), 1),
        ),
    ],
    "animation": [
        Right(saved("a.webp", PICTURE, save_all=True, append_images=[PICTURE.rotate(180)], lossless=True), COLORS),
        Right(saved("a.gif", palette(), save_all=True, append_images=[palette().rotate(180)]), bgr(palette())),
    ],
    "very long or wide": [
        Right(saved("a.png", Image.new("RGB", (20000, 500), (9, 99, 199))), np.full((500, 20000, 3), (199, 99, 9))),
        Right(saved("a.png", Image.new("RGB", (500, 20000), (9, 99, 199))), np.full((20000, 500, 3), (199, 99, 9))),
    ],
    "1 x 1 pixel": [Right(saved("a.png", PICTURE.crop((0, 0, 1, 1))), COLORS[:1, :1])],
    "array of another dtype": [
        Wrong(lambda _: FLOATS, r"images\[0\]: got an array float32 \(60, 90, 3\), expected uint8 .*no pixel_range"),
        Wrong(lambda _: np.where(FLOATS > 9, FLOATS, np.nan), r"images\[0\]: got an array float32 .*no pixel_range"),
        Wrong(lambda _: COLORS.astype(np.int64), r"images\[0\]: got an array int64 "),
        Wrong(lambda _: COLORS > 9, r"images\[0\]: got an array bool "),
        Wrong(lambda _: COLORS.astype(object), r"images\[0\]: got an array object "),
    ],
    "empty array": [
        Wrong(lambda _: np.zeros((0, 0, 3), np.uint8), r"images\[0\]: got an array uint8 \(0, 0, 3\), expected uint8"),
        Wrong(lambda _: Image.new("RGB", (0, 0)), r"images\[0\]: got a PIL image of 0 x 0 pixels"),
    ],
    "array with channels first": [
        Wrong(lambda _: COLORS.transpose(2, 0, 1), r"images\[0\]: got an array uint8 \(3, 60, 90\), expected uint8")
    ],
    "array that is not contiguous": [
        Right(lambda _: COLORS[::2, ::-3], np.ascontiguousarray(COLORS[::2, ::-3])),
        Right(lambda _: np.asfortranarray(COLORS), COLORS),
        Right(lambda _: RGB[..., ::-1], COLORS),
    ],
    "PIL image that PIL cannot convert": [
        Wrong(lambda _: Image.new("La", (4, 4)), r"images\[0\]: the PIL image cannot be decoded \(conversion"),
        Wrong(lambda _: Image.new("I;16", (4, 4)), r"images\[0\]: got a PIL image of mode I;16, expected 8 bits"),
    ],
    "bytes that are no image": [
        Wrong(lambda _: b"", r"images\[0\]: got 0 bytes .*: the image is empty"),
        Wrong(lambda _: encoded(".jpg", COLORS)[:-20], r"images\[0\]: got \d+ bytes .*JPEG without its end mark"),
        Wrong(lambda _: encoded(".tif", GRAY / np.float32(255)), r"images\[0\]: got values .* pixel_range=0,1"),
    ],
    "None in a list": [Wrong(lambda _: [None], r"images\[0\]: got None, expected a path, ")],
    "None": [Wrong(lambda _: None, "images: got None, expected a path, ", skipped=False)],
    "folder in a list": [Wrong(lambda folder: [folder], "got a folder among images, expected image files")],
    "folder without images": [
        Wrong(folder_of(notes_txt=b"no image"), r"pictures: no image found in the folder, expected", skipped=False),
        Wrong(folder_of(), r"pictures: no image found in the folder, expected .*\.bmp, ", skipped=False),
    ],
    "folder with unreadable images only": [
        Wrong(folder_of(a_jpg=b"", b_png=b"no image"), r"a\.jpg: the image is empty"),
    ],
    "folder with a folder named as an image": [Right(folder_that_is_named_as_a_picture, COLORS)],
    "missing path": [
        Wrong(lambda folder: folder / "none.jpg", r"none\.jpg: no image found, there is no such file", skipped=False),
        Wrong(
            lambda folder: [folder / "none.jpg"], r"none\.jpg: the image cannot be read \(No such file or directory\)"
        ),
        Wrong(lambda _: "", "got an empty path", skipped=False),
    ],
    "pattern that matches nothing": [
        Wrong(lambda folder: f"{folder}/*.jpg", r"\*\.jpg: no image found, the pattern matches no file", skipped=False)
    ],
    "name that is not ASCII, with spaces and brackets": [Right(deep_name, COLORS)],
}
NUMBERED = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]
RIGHT = [(name, i) for name, i in NUMBERED if isinstance(CASES[name][i], Right)]
WRONG = [(name, i) for name, i in NUMBERED if isinstance(CASES[name][i], Wrong)]
OTHER_ROWS = {"Exif orientation", "floats and 16 bits with a pixel range", "sides of more than 65500 pixels"}
OTHER_ROWS |= {"TIFF with transparency"}


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, spec = detector
    return export_onnx(model, spec, tmp_path_factory.mktemp("pictures") / "model.onnx")


@pytest.fixture(scope="module")
def predictor(file: Path) -> Predictor:
    return Predictor(file, threads=1)


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected) > 0
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(("name", "i"), RIGHT)
def test_it_is_predicted_like_the_picture_it_shows(name, i, predictor, file, tmp_path):
    case = CASES[name][i]
    assert isinstance(case, Right)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL on palettes with transparency
        source = case.make(tmp_path)
    if name == "animation" and tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11):
        pytest.skip("this OpenCV reads no animations")
    like = np.ascontiguousarray(case.like, np.uint8)
    (found,) = predictor(source)
    seen = load_image(found.image).pixels.astype(int)
    assert np.abs(seen - like).max() <= case.tolerance
    if not case.tolerance:
        assert_same(found, predictor(like)[0])
    if isinstance(source, Path):
        assert main(["predict", str(file), str(source), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(("name", "i"), WRONG)
def test_it_is_one_sentence(name, i, predictor, file, tmp_path, capsys, caplog):
    case = CASES[name][i]
    assert isinstance(case, Wrong)
    source = case.make(tmp_path)
    with pytest.raises(UserError, match=case.message) as error:
        predictor(source)
    assert "\n" not in str(error.value)
    if case.skipped:
        assert predictor(source, on_error="skip") == [] and re.search(f"skipped: .*{case.message}", caplog.text)
    else:
        with pytest.raises(UserError, match=case.message):
            predictor(source, on_error="skip")
    if isinstance(source, (Path, str)):
        assert main(["predict", str(file), str(source), "--out", str(tmp_path / "out")]) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ") and re.search(case.message, last)


@pytest.mark.parametrize(
    ("name", "i"),
    [(n, i) for n, i in WRONG if n in ("empty file", "truncated file", "no image", "more than 2^30 pixels")],
)
def test_the_others_of_its_folder_are_predicted_where_it_is_skipped(name, i, predictor, file, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    case = CASES[name][i]
    bad = case.make(folder)
    for other in ("0.png", "z.png"):
        PICTURE.save(folder / other)
    assert [found.stem for found in predictor(folder, on_error="skip")] == ["0", "z"]
    with pytest.raises(UserError, match=bad.name):
        predictor(folder)
    assert main(["predict", str(file), str(folder), "--out", str(tmp_path / "out"), "--batch-size", "3"]) == 0
    said = capsys.readouterr().out
    assert (
        isinstance(case, Wrong) and re.search(f"skipped, cannot be read: .*{case.message}", said) and "2 images" in said
    )


def test_the_command_prints_nothing_else(file, tmp_path):
    half("png")(tmp_path)
    words = [sys.executable, "-m", "efftasks", "predict", str(file), "half.png", "--out", "out"]
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(PAGE.parents[1])
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: half.png: the image is truncated or damaged (PNG without its end chunk)\n"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_detections_of_the_upright_picture(orientation, suffix, predictor, tmp_path):
    """The stored picture is the one that, turned as the tag says, is the upright one: by hand, the inverse of each."""
    upright = np.kron(_RANDOM, np.ones((16, 16, 1), np.uint8))  # blocks, which JPEG keeps
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright.swapaxes(0, 1)[::-1],  # "the top of the picture is the right side as it is seen"
        7: upright.swapaxes(0, 1)[::-1, ::-1],
        8: upright.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless: dict[str, dict[str, Any]] = {"jpg": dict(quality=100, subsampling=0), "webp": dict(lossless=True)}
    Image.fromarray(np.ascontiguousarray(stored[..., ::-1])).save(
        tmp_path / f"a.{suffix}", exif=exif, **lossless.get(suffix, {})
    )
    (found,), (expected,) = predictor(tmp_path / f"a.{suffix}"), predictor(np.ascontiguousarray(upright))
    seen = load_image(found.image).pixels
    trained_on = LoadImage().transform(dict(img_path=str(tmp_path / f"a.{suffix}")))
    np.testing.assert_array_equal(trained_on["img"], seen)
    assert trained_on["ori_shape"] == upright.shape[:2]  # in which COCO annotations are taken
    assert seen.shape == upright.shape  # the frame of boxes: that of the upright picture
    if suffix == "jpg":
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.03)
        assert np.abs(seen.astype(int) - upright).max() <= 3
    else:
        assert_same(found, expected)


def test_pixel_ranges_bring_other_numbers_to_8_bits(detector, tmp_path):
    model, spec = detector
    ranged = replace(spec, input=replace(spec.input, pixel_range=(0, 510)))
    predictor = Predictor(export_onnx(model, ranged, tmp_path / "model.onnx"), threads=1)
    (expected,) = predictor(COLORS)
    doubled = COLORS.astype(np.uint16) * 2
    cv2.imwrite(str(tmp_path / "a.png"), doubled)
    for form in (tmp_path / "a.png", doubled, doubled.astype(np.float32), doubled.astype(">u2")):
        assert_same(predictor(form)[0], expected)
    holes = np.where(COLORS < 30, np.nan, doubled.astype(np.float32))
    assert_same(predictor(holes)[0], predictor(np.where(COLORS < 30, 0, COLORS).astype(np.uint8))[0])  # black


def test_pictures_that_jpeg_cannot_hold_are_drawn_smaller(predictor, file, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((6, 70000, 3), 99, np.uint8))
    (found,) = predictor(tmp_path / "a.png")
    assert found.draw(tmp_path / "drawn").shape == (6, 70000, 3)
    assert main(["predict", str(file), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    for folder in ("drawn", "out"):
        with Image.open(tmp_path / folder / "a.jpg") as drawn:
            assert drawn.size == (65500, 5)


def test_transparency_of_tiff_darkens(tmp_path):
    """OpenCV multiplies it in: the page says so. Once it does not, the page has to."""
    pixels = np.dstack([COLORS[..., ::-1], ALPHA])
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    seen = load_image(tmp_path / "a.tif").pixels.astype(float)
    assert np.abs(seen - COLORS * (ALPHA[..., None] / 255)).max() <= 1.01


def test_the_page_has_a_row_for_each_case():
    section = PAGE.read_text(encoding="utf-8").split("## Images")[1].split("\n## ")[0]
    rows = [row.split("|")[1].strip() for row in section.splitlines() if row.startswith("| ")][1:]
    assert sorted(rows) == sorted({*CASES, *OTHER_ROWS})
