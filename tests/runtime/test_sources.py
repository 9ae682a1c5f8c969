"""What people hold as an image, for exported files and for checkpoints: the same pixels, or one clear error."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from efftasks.imaging.images import read_image
from efftasks.imaging.sources import each_image, in_batches, load_image
from efftasks.structures.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)  # BGR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    return tmp_path / "a.png"


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "str": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "array": lambda path: PICTURE,
    "BGRA": lambda path: np.dstack([PICTURE, np.full((12, 20), 9, np.uint8)]),
    "PIL": lambda path: Image.open(path),
    "PIL RGBA": lambda path: Image.open(path).convert("RGBA"),
    "turned view": lambda path: PICTURE[::-1][::-1],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_picture(form, path):
    loaded = load_image(FORMS[form](path), 3)
    np.testing.assert_array_equal(loaded.pixels, PICTURE)
    assert loaded.pixels.dtype == np.uint8
    assert loaded.name == ("a" if form in ("path", "str") else "image_000003")
    assert isinstance(loaded.source, str) is (form in ("path", "str"))


def test_grey_and_palettes(path):
    grey = PICTURE[..., 0]
    for form in (grey, grey[..., None], Image.fromarray(grey)):
        np.testing.assert_array_equal(load_image(form).pixels, np.repeat(grey[..., None], 3, axis=2))
    palette = Image.open(path).quantize(16)
    expected = np.asarray(palette.convert("RGB"))[..., ::-1]
    np.testing.assert_array_equal(load_image(palette).pixels, expected)
    bits = Image.fromarray(grey > 100)
    np.testing.assert_array_equal(load_image(bits).pixels[..., 1], 255 * (grey > 100))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_that_of_files(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(PICTURE[:2, :3], np.ones((16, 16, 1), np.uint8))
    Image.fromarray(blocks).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    file = read_image(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        loaded = load_image(image)
    assert file.shape == loaded.pixels.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    assert np.abs(file.astype(int) - loaded.pixels).max() <= 2  # two decoders


def test_one_or_several(path):
    for several in ([path, PICTURE], (path, PICTURE), (image for image in (path, PICTURE)), {path: 0, "b": 1}.keys()):
        assert len(list(each_image(several))) == 2
    for one in (PICTURE, path.read_bytes(), Image.open(path)):
        assert len(list(each_image(one))) == 1
    assert list(each_image(path.parent)) == list(each_image(str(path))) == [str(path)]
    assert list(each_image([])) == []
    assert list(in_batches(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, "images: got None, expected a path, "),
        (5, "images: got a value of type int, expected a path, "),
        ({"img": 1}, "images: got a value of type dict, expected a path, "),
        ([PICTURE, 5], r"images\[1\]: got a value of type int, expected a path, "),
        ([None], r"images\[0\]: got None, expected"),
        ([[PICTURE]], r"images\[0\]: got a value of type list"),
        (b"no image", r"images\[0\]: got 8 bytes that cannot be decoded"),
        (b"", r"images\[0\]: got 0 bytes that cannot be decoded"),
        (["film.mp4"], "film.mp4: got a video, .*stream"),
        (Image.new("I;16", (4, 4)), "PIL image of mode I;16, expected 8 bits"),
        (Image.new("F", (4, 4)), "PIL image of mode F, expected 8 bits"),
        ("nul\0.jpg", "nul"),
        (["nul\0.jpg"], "nul"),
    ],
)
def test_everything_else_is_one_clear_error(images, said):
    with pytest.raises(UserError, match=said):
        [load_image(image, i) for i, image in enumerate(each_image(images))]


def test_folders(tmp_path, path):
    with pytest.raises(UserError, match=r"got a folder among images, expected image files"):
        load_image(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path.rename(tmp_path / "deep" / "er" / "a.png")
    with pytest.raises(
        UserError, match=r"no image found in the folder itself \(those deeper in it: '.*/\*\*/\*\.png'\)"
    ):
        list(each_image(tmp_path))
    assert len(list(each_image(f"{tmp_path}/**/*.png"))) == 1


def test_a_truncated_pil_file(path):
    whole = path.read_bytes()
    image = Image.open(io.BytesIO(whole[: len(whole) // 2]))
    with pytest.raises(UserError, match=r"images\[0\]: the PIL image cannot be decoded"):
        load_image(image)


def test_pil_is_not_imported(path):
    code = (
        "import sys; from efftasks.imaging.sources import load_image\n"
        f"load_image({str(path)!r}); print('PIL' in sys.modules)\n"
        "try: load_image(object())\n"
        "except ValueError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[0] == "False" and "of type object" in run.stdout


def test_checkpoints_take_the_same(path):
    from efftasks import apis

    cfg = apis.load_config(
        "o2o-n_mobilenetv4-conv-s_1xb16-18e_shapes-128", {"model.backbone.width": 0.25, "classes": ("a",)}
    )
    model = apis.build(cfg).eval()
    model.cfg, model.dataset_meta = cfg, dict(classes=("a",), category_ids=(1,))
    forms = [form(path) for form in FORMS.values()]
    first, *others = apis.predict(model, (form for form in forms), batch_size=4)
    assert len(others) == len(forms) - 1 and first.stem == "a" and others[1].stem == "image_000002"
    for found in others:
        np.testing.assert_allclose(found.boxes, first.boxes, atol=1e-3)
    assert len(apis.predict(model, path.parent)) == 1 and apis.predict(model, []) == []
    with pytest.raises(UserError, match="images: got None"):
        apis.predict(model, None)
    with pytest.raises(UserError, match="batch_size: got 0"):
        apis.predict(model, path, batch_size=0)


def pixels(array: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    return load_image(array, 0, pixel_range).pixels


def test_arrays_of_other_numbers_need_a_range() -> None:
    array = np.full((2, 3, 3), 2048, np.uint16)
    assert (pixels(array, (0, 4096)) == 128).all() and (pixels(array / 4096, (0, 1)) == 128).all()
    eight = np.full((2, 3, 3), 9, np.uint8)
    assert pixels(eight, None) is eight and (pixels(eight, (0, 4095)) == 9).all()
    with pytest.raises(UserError, match=r"got an array uint16 \(2, 3, 3\), expected uint8 .*states no pixel_range"):
        pixels(array, None)
    for wrong in (array[0, 0], array[..., :2], array[:0], array > 0, array.astype(complex)):
        with pytest.raises(UserError, match="expected uint8, or other numbers in pixel_range"):
            pixels(wrong, (0, 4095))
