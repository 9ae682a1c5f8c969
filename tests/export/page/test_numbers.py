"""The page's JavaScript computes what the runtime's Python computes, compared number by number under node."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from efftasks.imaging.drawing import palette
from efftasks.imaging.label_maps import labels_on_image
from efftasks.imaging.masks import box_windows, masks_on_image
from efftasks.imaging.semantic_drawing import semantic_palette
from efftasks.runtime.decoders import top_pairs
from efftasks.runtime.preprocess import Placement, fit_image, keypoints_to_image, to_image_pixels
from efftasks.structures.spec import DecoderSpec, InputSpec


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random pixels: every weight of the interpolation counts."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rgba(image_bgr: np.ndarray, alpha: int = 255) -> dict[str, Any]:
    """As a browser's ImageData."""
    height, width = image_bgr.shape[:2]
    channels = np.dstack([image_bgr[..., ::-1], np.full((height, width, 1), alpha, np.uint8)])
    return dict(data=channels.ravel().tolist(), width=width, height=height)


def input_spec(height: int, width: int, **fields: Any) -> InputSpec:
    defaults: dict[str, Any] = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    return InputSpec("images", height, width, **{**defaults, **fields})


def as_json(spec: InputSpec) -> dict[str, Any]:
    names = ("height", "width", "mean", "std", "resize", "pad_value", "color", "layout", "dtype")
    return {name: getattr(spec, name) for name in names}


def expected_input(image: np.ndarray, spec: InputSpec) -> tuple[np.ndarray, Placement]:
    """float32 (1, 3, H, W) or (1, H, W, 3), in the arithmetic of float32 that the runtime has."""
    fitted, place = fit_image(image, spec, (spec.height, spec.width))
    height, width = fitted.shape[:2]
    mean, std = np.array(spec.mean), np.array(spec.std)
    values = np.empty((spec.height, spec.width, 3), np.float32)
    values[:] = (spec.pad_value - mean) / std
    ordered = (fitted[..., ::-1] if spec.color == "RGB" else fitted).astype(np.float32)
    values[:height, :width] = ordered * (1 / std).astype(np.float32) - (mean / std).astype(np.float32)
    return (values if spec.layout == "NHWC" else values.transpose(2, 0, 1))[None], place


SIZES = [
    ((48, 64), (32, 32)),  # the exact half of one side
    ((480, 640), (64, 64)),
    ((37, 53), (64, 96)),  # enlarged
    ((50, 33), (50, 64)),  # one side as it is
    ((1, 7), (4, 5)),  # a side of one pixel
    ((9, 1), (3, 3)),
    ((127, 211), (96, 160)),
    ((64, 64), (64, 64)),
]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resizing_is_that_of_opencv_to_the_bit(run_js, before, after):
    image = picture(*before)
    body = (
        'const { resize } = await import("./js/resize.js"); return resize(input.image, input.width, input.height).data;'
    )
    data = run_js(body, dict(image=rgba(image, alpha=7), height=after[0], width=after[1]))
    resized = np.array(data, np.uint8).reshape(*after, 4)
    expected = cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resized[..., 2::-1], expected)
    assert (resized[..., 3] == 255).all()


PREPROCESS = 'const { preprocess } = await import("./js/preprocess.js"); return preprocess(input.image, input.spec);'


@pytest.mark.parametrize(
    "fields",
    [
        dict(resize="letterbox"),
        dict(resize="stretch"),
        dict(resize="letterbox", color="BGR", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
        dict(resize="letterbox", layout="NHWC", pad_value=0.0),
    ],
    ids=lambda fields: " ".join(map(str, fields.values())),
)
@pytest.mark.parametrize("size", [(45, 61), (61, 45), (20, 31)])
def test_the_network_input_is_that_of_the_runtime(run_js, fields, size):
    image, spec = picture(size[0], size[1], seed=1), input_spec(32, 64, **fields)
    made = run_js(PREPROCESS, dict(image=rgba(image), spec=as_json(spec)))
    expected, place = expected_input(image, spec)
    assert made["type"] == "float32" and tuple(made["dims"]) == expected.shape
    assert np.array_equal(np.array(made["data"], np.float32), expected.ravel())
    position = made["place"]
    assert (position["scaleX"], position["scaleY"]) == (place.scale_x, place.scale_y)
    assert (position["fittedHeight"], position["fittedWidth"]) == place.covered


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_a_network_that_takes_bytes_gets_those_of_the_picture(run_js, color):
    """Four channels, the last axis, padded below with the stated value."""
    image, spec = picture(20, 40, seed=2), as_json(input_spec(32, 32, color=color))
    made = run_js(PREPROCESS, dict(image=rgba(image), spec={**spec, "dtype": "uint8", "layout": "NHWC"}))
    data = np.array(made["data"], np.uint8).reshape(made["dims"])
    assert data.shape == (1, 32, 32, 4) and made["type"] == "uint8"
    resized = cv2.resize(image, (32, 16))
    assert np.array_equal(data[0, :16, :, :3], resized[..., ::-1] if color == "RGB" else resized)
    assert (data[0, 16:, :, :3] == 114).all()


DECODE = 'const { decode } = await import("./js/decode.js"); const { placeImage } = await import("./js/preprocess.js");'
OUTPUTS = """
    const types = { int64: (x) => BigInt64Array.from(x.map(BigInt)), uint8: (x) => Uint8Array.from(x) };
    const outputs = Object.fromEntries(Object.entries(input.outputs).map(([name, { data, dims, dtype }]) =>
      [name, { data: (types[dtype] ?? ((x) => Float32Array.from(x)))(data), dims }]));
    const place = placeImage(input.spec.input, input.width, input.height);
    const decoded = decode(outputs, input.spec, place);
"""


def as_outputs(**arrays: np.ndarray) -> dict[str, Any]:
    return {
        name: dict(data=array.ravel().tolist(), dims=list(array.shape), dtype=str(array.dtype))
        for name, array in arrays.items()
    }


def test_boxes_and_keypoints_are_in_pixels_of_the_picture(run_js):
    rng = np.random.default_rng(3)
    spec = input_spec(64, 96)
    boxes = rng.uniform(-20, 110, (1, 5, 4)).astype(np.float32)
    scores = np.sort(rng.uniform(0, 1, (1, 5)).astype(np.float32))[:, ::-1]
    labels = rng.integers(0, 3, (1, 5))
    keypoints = rng.uniform(-5, 99, (1, 5, 2, 3)).astype(np.float32)
    outputs = as_outputs(boxes=boxes, scores=scores, labels=labels, keypoints=keypoints)
    data = dict(outputs=outputs, spec=dict(input=as_json(spec), decoder=None), width=131, height=77)
    objects = run_js(f"{DECODE} {OUTPUTS} return decoded.objects;", data)
    _, place = fit_image(picture(77, 131), spec, (64, 96))
    assert np.allclose([o["box"] for o in objects], to_image_pixels(boxes[0], place), rtol=1e-6, atol=0)
    assert np.allclose([o["keypoints"] for o in objects], keypoints_to_image(keypoints[0], place), rtol=1e-6, atol=0)
    assert [o["label"] for o in objects] == labels[0].tolist()
    assert np.allclose([o["score"] for o in objects], scores[0])


@pytest.mark.parametrize("most", [4, 100])
def test_the_best_pairs_are_those_of_the_runtime(run_js, most):
    rng = np.random.default_rng(4)
    outputs = dict(
        boxes=rng.uniform(0, 64, (1, 6, 4)).astype(np.float32),
        scores=(rng.integers(0, 4, (1, 6, 3)) / 4).astype(np.float32),  # with many ties
        masks=rng.normal(size=(1, 6, 2, 2)).astype(np.float32),
    )
    body = 'const { topPairs } = await import("./js/decode.js");'
    body += "for (const value of Object.values(input.outputs)) value.data = Float32Array.from(value.data);"
    made = run_js(f"{body} return topPairs(input.outputs, input.most);", dict(outputs=as_outputs(**outputs), most=most))
    expected = top_pairs(outputs, DecoderSpec("top-pairs", most))
    for name, array in expected.items():
        assert made[name]["dims"] == list(array.shape), name
        assert np.array_equal(np.array(made[name]["data"], np.float32), array.ravel()), name


@pytest.mark.parametrize("cells", [(64, 96), (16, 24)], ids=["pixels", "cells"])
def test_label_maps_are_those_of_the_runtime(run_js, cells):
    spec = input_spec(64, 96)
    labels = np.random.default_rng(5).integers(0, 9, (1, *cells), np.uint8)
    _, place = fit_image(picture(77, 131), spec, (64, 96))
    data = dict(
        outputs=as_outputs(segmentation=labels), spec=dict(input=as_json(spec), decoder=None), width=131, height=77
    )
    decoded = run_js(f"{DECODE} {OUTPUTS} return decoded;", data)
    expected = labels_on_image(labels[0], place.covered, (64, 96), (77, 131))
    assert decoded["objects"] == []
    assert np.array_equal(np.array(decoded["segmentation"], np.uint8).reshape(77, 131), expected)


def test_scores_of_a_label_map_become_labels(run_js):
    spec = input_spec(64, 64)
    logits = np.random.default_rng(6).integers(0, 3, (1, 5, 16, 16)).astype(np.float32)  # with ties
    data = dict(outputs=as_outputs(logits=logits), spec=dict(input=as_json(spec), decoder=None), width=64, height=64)
    labels = run_js(f"{DECODE} {OUTPUTS} return decoded.segmentation;", data)
    assert np.array_equal(np.array(labels).reshape(64, 64)[::4, ::4], logits[0].argmax(0))


def test_masks_are_those_of_the_runtime(run_js):
    rng = np.random.default_rng(7)
    spec = input_spec(64, 96)
    masks = rng.normal(size=(1, 4, 16, 24)).astype(np.float32)
    boxes = np.array([[[2, 3, 60, 50], [-9, -9, 200, 200], [5.5, 5.2, 5.9, 40], [80, 10, 80, 30]]], np.float32)
    scores, labels = np.full((1, 4), 0.5, np.float32), np.zeros((1, 4), np.int64)
    outputs = as_outputs(boxes=boxes, scores=scores, labels=labels, masks=masks)
    data = dict(outputs=outputs, spec=dict(input=as_json(spec), decoder=None), width=131, height=77)
    body = f'{DECODE} {OUTPUTS} const {{ maskInBox }} = await import("./js/masks.js");'
    windows = run_js(f"{body} return decoded.objects.map((o) => maskInBox(o.mask, o.box, place));", data)
    _, place = fit_image(picture(77, 131), spec, (64, 96))
    image_boxes = to_image_pixels(boxes[0], place)
    expected = masks_on_image(masks[0], image_boxes, (place.scale_x, place.scale_y), (77, 131))
    for window, mask, (left, top, right, bottom) in zip(windows, expected, box_windows(image_boxes, (77, 131))):
        assert (window["left"], window["top"]) == (left, top)
        assert (window["width"], window["height"]) == (right - left, bottom - top)
        inside = np.array(window["inside"], bool).reshape(bottom - top, right - left)
        assert np.array_equal(inside, mask[top:bottom, left:right])
        assert mask.sum() == inside.sum()


def test_colors_are_those_of_drawn_pictures(run_js):
    body = 'const { objectColor, semanticColor } = await import("./js/colors.js"); const k = [...Array(64).keys()];'
    made = run_js(f"{body} return [k.map(objectColor), k.map((i) => semanticColor(i, []))];", None)
    objects = [color[::-1] for color in palette(64)]
    assert np.abs(np.array(made[0]) - np.array(objects)).max() <= 1
    assert np.array_equal(made[1], [color[::-1] for color in semantic_palette(64)])
