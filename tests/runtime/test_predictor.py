import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from efftasks import Predictor
from efftasks.imaging.masks import masks_on_image
from efftasks.runtime.preprocess import as_the_network_sees, fit_image, input_buffer, to_image_pixels, write_image
from efftasks.structures.errors import UserError
from efftasks.structures.spec import ArtifactSpec, InputSpec, OutputSpec

FACTS = InputSpec("images", 64, 96, mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0))
SPEC = ArtifactSpec(
    task="detection",
    classes=("cat", "dog"),
    category_ids=(3, 7),
    input=FACTS,
    outputs=tuple(
        OutputSpec(name, ("N", 2), dtype, "")
        for name, dtype in (("boxes", "float32"), ("scores", "float32"), ("labels", "int64"))
    ),
)


def write_model(path: Path, spec: ArtifactSpec | None = SPEC, **more: np.ndarray) -> Path:
    """A file that answers every image with the same two detections, dog 0.9 and cat 0.2, and ``more`` of (1, ...)."""
    constants: dict[str, np.ndarray] = {
        "boxes": np.array([[[8, 16, 40, 48], [0, 0, 200, 200]]], np.float32),
        "scores": np.array([[0.9, 0.2]], np.float32),
        "labels": np.array([[1, 0]], np.int64),
        **more,
    }
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
    ]
    initializers, outputs = [], []
    for name, value in constants.items():
        tail = np.array(value.shape[1:], np.int64)
        initializers += [
            onnx.numpy_helper.from_array(value, f"{name}_one"),
            onnx.numpy_helper.from_array(tail, f"{name}_tail"),
        ]
        nodes += [
            helper.make_node("Concat", ["batch", f"{name}_tail"], [f"{name}_shape"], axis=0),
            helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]),
        ]
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, ["N", *value.shape[1:]]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 64, 96])
    graph = helper.make_graph(nodes, "constant", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if spec is not None:
        added = (OutputSpec(name, ("N", *value.shape[1:]), str(value.dtype), "") for name, value in more.items())
        helper.set_model_props(model, {"efftasks": replace(spec, outputs=(*spec.outputs, *added)).to_json()})
    onnx.save(model, str(path))
    return path


def write_mean_model(path: Path) -> Path:
    """A file that answers with one box, label 0, and the mean of its input as the score."""
    zero = onnx.numpy_helper.from_array(np.zeros(1, np.int64))
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["scores"]),
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "one"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["labels"], value=zero),
        helper.make_node("Concat", ["shape", "four"], ["box"], axis=0),
        helper.make_node("ConstantOfShape", ["box"], ["boxes"]),
    ]
    numbers = {"axes": [1, 2, 3], "last": [1], "one": [1], "four": [4]}
    outputs = {"boxes": (TensorProto.FLOAT, ["N", 1, 4]), "scores": (TensorProto.FLOAT, ["N", 1])}
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [
            *(helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N", 1]),
        ],
        [onnx.numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = replace(FACTS, std=(1000.0, 2000.0, 4000.0), resize="stretch", dynamic_size=True)
    helper.set_model_props(model, {"efftasks": replace(SPEC, input=facts).to_json()})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(64, 96), (37, 91), (301, 203), (50, 50), (1, 7)])
def test_preprocessing_equals_mmcv(size, resize):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    facts = replace(FACTS, resize=resize)
    fitted, place = fit_image(image, facts, (64, 96))
    ours = np.full((3, 64, 96), np.nan, np.float32)
    write_image(ours, fitted, facts)

    scale = min(64 / size[0], 96 / size[1])
    shape = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
    expected = mmcv.imresize(image, shape if resize == "letterbox" else (96, 64))
    height, width = expected.shape[:2]
    assert (place.scale_y, place.scale_x) == (height / size[0], width / size[1])
    expected = mmcv.impad(expected, shape=(64, 96), pad_val=(114, 114, 114))
    expected = mmcv.imnormalize(expected, np.array(facts.mean), np.array(facts.std), to_rgb=True)
    np.testing.assert_allclose(ours, expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("size", [(64, 96), (37, 91), (50, 50), (1, 7)])
def test_bytes_are_the_pixels_that_floats_are_made_of(size, color):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    facts = replace(FACTS, color=color, pad_value=77.0)
    fitted, _ = fit_image(image, facts, (64, 96))
    buffers = [input_buffer(2, (64, 96), spec) for spec in (facts.of_bytes(), facts)]
    assert buffers[0].dtype == np.uint8 and buffers[0].shape == (2, 64, 96, 4)
    for buffer, spec in zip(buffers, (facts.of_bytes(), facts)):
        buffer[:] = 3
        write_image(buffer[1], fitted, spec)
        assert (buffer[0] == 3).all()  # the place of another image
    expected = mmcv.impad(fitted if color == "BGR" else fitted[..., ::-1], shape=(64, 96), pad_val=(77, 77, 77))
    np.testing.assert_array_equal(buffers[0][1, ..., :3], expected)
    seen = [as_the_network_sees(buffer, spec) for buffer, spec in zip(buffers, (facts.of_bytes(), facts))]
    assert seen[0].dtype == np.float32
    np.testing.assert_allclose(seen[0][1], seen[1][1], atol=1e-6)


def test_boxes_come_back_to_the_image(model):
    image = np.zeros((32, 24, 3), np.uint8)  # letterboxed to 64 x 48: twice as large
    (found,) = Predictor(model)(image)
    np.testing.assert_allclose(found.boxes, [[4, 8, 20, 24], [0, 0, 24, 32]])
    np.testing.assert_allclose(found.scores, [0.9, 0.2])
    assert found.labels.tolist() == [1, 0]
    assert found.to_coco(5)[0] == {"image_id": 5, "category_id": 7, "bbox": [4.0, 8.0, 16.0, 16.0], "score": 0.9}
    assert to_image_pixels(np.zeros((0, 4), np.float32), fit_image(image, FACTS, (64, 96))[1]).shape == (0, 4)


@pytest.mark.parametrize("size", [None, (32, 64)])
def test_the_network_sees_what_the_description_says(tmp_path, size):
    predictor = Predictor(write_mean_model(tmp_path / "mean.onnx"), threads=1, size=size)
    colors = np.random.default_rng(0).integers(50, 256, (5, 3))  # blue, green, red
    images = [np.broadcast_to(c, (9 + i, 50 - i, 3)).astype(np.uint8) for i, c in enumerate(colors)]
    expected = [((r - 10) / 1000 + (g - 20) / 2000 + (b - 30) / 4000) / 3 for b, g, r in colors]
    for batch_size in (1, 2, 5):
        found = predictor(images, batch_size=batch_size)
        np.testing.assert_allclose([p.scores[0] for p in found], expected, rtol=1e-4)
    blob = np.full((2, 3, *predictor.size), 0.25, np.float32)
    np.testing.assert_allclose(predictor.session.run(blob)["scores"], [[0.25], [0.25]], rtol=1e-5)


def test_what_cannot_be_read_is_skipped_on_request(model, tmp_path, caplog):
    for name in ("a", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no image")
    predictor = Predictor(model)
    for batch_size in (1, 3):
        found = predictor(tmp_path, batch_size=batch_size, on_error="skip")
        assert [p.stem for p in found] == ["a", "c"]
    assert "b.png: the image does not decode as an image" in caplog.text
    assert predictor([tmp_path / "b.png"], on_error="skip") == [] and predictor([]) == []
    with pytest.raises(UserError, match=r"b\.png"):
        predictor(tmp_path, batch_size=3)


def test_video_frame_by_frame(model, film, tmp_path):
    frames = list(Predictor(model).stream(film))
    assert [frame.stem for frame in frames] == ["film_000000", "film_000001", "film_000002"]
    assert [round(float(frame.image.mean()) / 80) for frame in frames] == [0, 1, 2]  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"none\.avi: the video is missing"):
        next(Predictor(model).stream(tmp_path / "none.avi"))


def test_arrays_have_names_of_their_own(model):
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    assert [p.stem for p in Predictor(model)(images, batch_size=2)] == ["image_000000", "image_000001", "image_000002"]


FULL = replace(
    SPEC,
    task="instance segmentation",
    keypoints=("nose", "tail"),
    skeleton=((0, 1),),
    semantic_classes=("grass", "sky"),
    palette=((1, 2, 3), (4, 5, 6)),
)


def shapes() -> dict[str, np.ndarray]:
    """Masks at stride 4 of 64 x 96 (left of x = 24, and everywhere), keypoints, and sky below y = 16."""
    masks = np.ones((1, 2, 16, 24), np.float32)
    masks[0, 0, :, 6:] = -1
    points = np.array([[[[10, 20, 0.9], [-4, 70, 0.1]], [[0, 0, 0.5], [2, 4, 0.25]]]], np.float32)
    regions = np.zeros((1, 64, 96), np.uint8)
    regions[0, 16:] = 1
    return dict(masks=masks, keypoints=points, segmentation=regions)


def test_masks_keypoints_and_label_map_come_back_to_the_image(tmp_path):
    predictor = Predictor(write_model(tmp_path / "model.onnx", FULL, **shapes()))
    images = [np.zeros((32, 24, 3), np.uint8), np.zeros((128, 192, 3), np.uint8)]  # twice as large, half as large
    small, large = predictor(images, batch_size=2)
    assert small.masks is not None and small.masks.dtype == bool and small.masks.shape == (2, 32, 24)
    expected = np.zeros((32, 24), bool)
    expected[8:24, 4:12] = True  # its box (4, 8) to (20, 24), left of 24 / 2
    np.testing.assert_array_equal(small.masks[0], expected)
    assert small.masks[1].all()
    assert small.keypoints is not None and small.keypoints.dtype == np.float32
    # not clipped: its tail lies outside
    np.testing.assert_allclose(small.keypoints[0], [[5, 10, 0.9], [-2, 35, 0.1]])
    assert small.segmentation is not None and small.segmentation.shape == (32, 24)
    assert (small.segmentation == (np.arange(32) >= 8)[:, None]).all()

    assert large.masks is not None and large.masks.shape == (2, 128, 192)
    columns = np.flatnonzero(large.masks[0].any(axis=0))
    assert (columns[0], columns[-1]) == (16, 47) and large.masks[0].sum() == 32 * 64
    assert large.keypoints is not None
    np.testing.assert_allclose(large.keypoints[1], [[0, 0, 0.5], [4, 8, 0.25]])
    assert large.keypoint_names == ("nose", "tail") and large.skeleton == ((0, 1),)
    assert large.semantic_classes == ("grass", "sky") and large.palette == ((1, 2, 3), (4, 5, 6))
    assert large.draw().shape == (128, 192, 3)
    assert {"segmentation", "keypoints"} < set(large.to_coco()[0])


def test_a_stretched_image_has_two_scales(tmp_path):
    """By hand: 120 x 32 pixels (width x height) on 96 x 64, four fifths as wide and twice as high."""
    spec = replace(FULL, input=replace(FACTS, resize="stretch"))
    (found,) = Predictor(write_model(tmp_path / "model.onnx", spec, **shapes()))(np.zeros((32, 120, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[10, 8, 50, 24], [0, 0, 120, 32]], rtol=1e-6)
    assert found.keypoints is not None and found.masks is not None and found.segmentation is not None
    np.testing.assert_allclose(found.keypoints[0], [[12.5, 10, 0.9], [-5, 35, 0.1]], rtol=1e-6)
    columns, rows = (np.flatnonzero(found.masks[0].any(axis)) for axis in (0, 1))
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (10, 29, 8, 23)  # left of 24 / 0.8
    assert (found.segmentation == (np.arange(32) >= 8)[:, None]).all()


def test_masks_are_made_of_what_scores_enough_only(tmp_path, monkeypatch):
    import efftasks.runtime.predictor as module

    given = []

    def counted(masks: np.ndarray, *rest: object) -> np.ndarray:
        given.append(len(masks))
        return masks_on_image(masks, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "masks_on_image", counted)
    path = write_model(tmp_path / "model.onnx", FULL, **shapes())
    for threshold in (0.0, 0.5, 0.95):
        (found,) = Predictor(path, score_thr=threshold)(np.zeros((32, 24, 3), np.uint8))
        assert found.masks is not None and found.keypoints is not None
        assert len(found) == len(found.masks) == len(found.keypoints) == given[-1]
        assert found.segmentation is not None  # it has no score
    assert given == [2, 1, 0]


def test_each_output_alone(tmp_path):
    for name, value in shapes().items():
        (found,) = Predictor(write_model(tmp_path / "one.onnx", FULL, **{name: value}))(np.zeros((32, 24, 3), np.uint8))
        there = {key for key in ("masks", "keypoints", "segmentation") if getattr(found, key) is not None}
        assert there == {name} and len(found) == 2


def test_top_down_files_are_for_another_class(tmp_path):
    path = write_model(tmp_path / "pose.onnx", replace(SPEC, task="top-down pose"))
    with pytest.raises(UserError, match=r"pose\.onnx: got a model for top-down pose, .* TopDownPredictor"):
        Predictor(path)


def test_score_threshold(model):
    (found,) = Predictor(model, score_thr=0.5)(np.zeros((32, 24, 3), np.uint8))
    assert len(found) == 1 and found.labels.tolist() == [1]


def test_sources_and_batches(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((20 + i, 30, 3), 40 * i, np.uint8))
    (folder / "notes.txt").write_text("no image")
    predictor = Predictor(model)
    single = predictor(folder)
    assert [Path(str(p.image)).name for p in single] == [f"{i}.png" for i in range(5)]
    for source in (str(folder / "*.png"), [folder / f"{i}.png" for i in range(5)]):
        batched = predictor(source, batch_size=3)
        assert len(batched) == 5
        for a, b in zip(single, batched):
            np.testing.assert_array_equal(a.boxes, b.boxes)
    assert predictor(str(folder / "1.png"))[0].draw(tmp_path / "drawn").shape == (21, 30, 3)
    assert (tmp_path / "drawn" / "1.jpg").exists()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),  # channels first or last
        np.zeros((3, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8, 2), np.uint8),
        np.array(3),
    ],
)
def test_arrays_that_are_no_images(model, array):
    with pytest.raises(UserError, match=r"expected uint8 \(H, W, 3\) BGR"):
        Predictor(model)(array)


def test_files_that_cannot_be_used(model, tmp_path):
    whole = model.read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bad.png").write_bytes(b"no image")
    for call, said in (
        (lambda: Predictor(tmp_path / "none.onnx"), "no such file"),
        (lambda: Predictor(tmp_path / "half.onnx"), "corrupt, or not an ONNX file"),
        (lambda: Predictor(tmp_path / "model.pth"), "no runtime for .pth"),
        (
            lambda: Predictor(write_model(tmp_path / "mute.onnx", None)),
            "neither metadata 'efftasks' inside nor mute.json",
        ),
        (lambda: Predictor(tmp_path / "model.xml"), r"model\.xml: no such file"),
        (
            lambda: Predictor(tmp_path / "model.abacus"),
            r"no runtime for \.abacus, expected an exported file \(\.onnx, ",
        ),
        (lambda: Predictor(model, backend="tensorrt"), "backend: got 'tensorrt', expected one of onnxruntime"),
        (lambda: Predictor(model, threads=0), "threads: got 0"),
        (lambda: Predictor(model, score_thr=30), "score_thr: got 30"),
        (lambda: Predictor(model, size=(128, 128)), "takes 64 x 96 only"),
        (lambda: Predictor(model)(tmp_path, batch_size=0), "batch_size: got 0"),
        (
            lambda: Predictor(write_model(tmp_path / "other.onnx", replace(SPEC, input=replace(FACTS, name="x")))),
            r"other\.onnx: input: its description names \['x'\], the network has \['images'\]",
        ),
        (lambda: Predictor(model)(tmp_path / "nowhere"), "no image found"),
        (lambda: Predictor(model)(tmp_path / "bad.png"), "bad.png: the image does not decode as an image"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_the_sidecar_serves_where_the_file_is_mute(tmp_path):
    path = write_model(tmp_path / "model.onnx", None)
    SPEC.save(tmp_path / "model.json")
    assert Predictor(path).spec == SPEC


def test_needs_neither_torch_nor_openmmlab(model):
    code = (
        "import sys, numpy; from efftasks import Predictor; "
        f"Predictor({str(model)!r})(numpy.zeros((8, 8, 3), numpy.uint8)); "
        "print([m for m in ('torch', 'mmengine', 'mmcv', 'mmdet', 'matplotlib', 'pycocotools') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]", done.stderr


def with_range(path: Path, pixel_range: tuple[float, float] | None) -> Predictor:
    """Answers with the mean of its input as the score: 0 for black, 1 / 1000 + 1 / 2000 + 1 / 4000 a third for 1."""
    write_mean_model(path)
    predictor = Predictor(path)
    facts = replace(predictor.spec.input, mean=(0.0,) * 3, std=(255.0,) * 3, pixel_range=pixel_range)
    predictor.spec = replace(predictor.spec, input=facts)
    return predictor


def test_more_than_8_bits_are_read_by_the_range_of_the_artifact(tmp_path, caplog):
    picture = np.full((40, 50, 3), 1365, np.uint16)  # a third of 4095
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    predictor = with_range(tmp_path / "model.onnx", (0, 4095))
    images = [tmp_path / "a.png", picture, picture / 1.0, np.full((40, 50, 3), 85, np.uint8)]
    found = predictor(images)
    np.testing.assert_allclose([p.scores[0] for p in found], [1 / 3] * 4, rtol=1e-4)
    assert caplog.text == ""
    for prediction in found:  # drawn as it was seen
        assert prediction.draw(score_thr=1.0)[20, 25].tolist() == [85] * 3


def test_more_than_8_bits_without_a_range(tmp_path, caplog):
    picture = np.full((40, 50, 3), 1365, np.uint16)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    predictor = with_range(tmp_path / "model.onnx", None)
    found = predictor([tmp_path / "a.png", tmp_path / "b.png"])
    np.testing.assert_allclose([p.scores[0] for p in found], [5 / 255] * 2, rtol=1e-4)
    assert caplog.text.count("values 1365..1365 in 16 bits; divided by 256") == 1
    for array in (picture, picture / 4095):
        with pytest.raises(UserError, match=r"expected uint8 \(H, W, 3\) .* the model states no pixel_range"):
            predictor(array)
