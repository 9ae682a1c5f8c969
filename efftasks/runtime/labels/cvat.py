"""Pre-labels in the form "CVAT for images 1.1": one XML file. Its elements are those of CVAT's documentation.

See https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ (docs of CVAT, MIT).
"""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import XMLGenerator, quoteattr
from xml.sax.xmlreader import AttributesImpl

import cv2
import numpy as np
from numpy.typing import NDArray

from efftasks.imaging.polygons import mask_outlines
from efftasks.imaging.prediction import Prediction
from efftasks.runtime.labels.objects import LabeledObject, labeled_objects, place_image

__all__ = ["CvatLabels"]

_ATTRIBUTES = ("score", "track_id")
_DIGITS = 2


class CvatLabels:
    """``annotations.xml``, ``images/``, and ``labels.json`` for the raw form of CVAT's label constructor.

    Objects are boxes, of models with masks polygons (masks where a polygon does not suffice), of models with
    keypoints skeletons. Score and track are attributes.

    Args:
        folder: of the files, which need not exist.
        score_thr: minimum score, of objects and of each of their keypoints.
    """

    def __init__(self, folder: Path, score_thr: float) -> None:
        self._folder, self._score_thr, self._images = folder, score_thr, 0
        self._file: IO[str] | None = None

    def add(self, name: str, prediction: Prediction) -> None:
        """Write the element of an image, and the image; the first one also writes the labels."""
        objects = labeled_objects(prediction, self._score_thr)
        assert prediction.size is not None
        image = place_image(prediction, self._folder / "images")
        if self._file is None:
            self._begin(prediction)
        assert self._file is not None
        height, width = prediction.size
        self._start()
        self._open("image", id=self._images, name=image, width=width, height=height)
        for entry in objects:
            self._add_object(entry, prediction.keypoint_names)
        self._close("image")
        self._file.write(self._element.getvalue())
        self._images += 1

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.write("</annotations>\n")
            self._file.close()
            os.replace(self._draft, self._folder / "annotations.xml")

    @property
    def _draft(self) -> Path:
        return self._folder / "annotations.xml.part"

    def _start(self) -> None:
        """Begin an element that goes to the file when it is complete: an interrupt may come at any time."""
        self._element = io.StringIO()
        self._xml = XMLGenerator(self._element, "utf-8", short_empty_elements=True)

    def _begin(self, prediction: Prediction) -> None:
        labels = _labels(prediction)
        text = json.dumps(labels, indent=2, ensure_ascii=False)
        (self._folder / "labels.json").write_text(text, encoding="utf-8")
        self._start()
        self._xml.startDocument()
        self._open("annotations")
        self._text("version", "1.1")
        for name in ("meta", "task", "labels"):
            self._open(name)
        for label in labels:
            self._add_label(label)
        for name in ("labels", "task", "meta"):
            self._close(name)
        self._file = self._draft.open("w", encoding="utf-8")
        self._file.write(self._element.getvalue())

    def _add_label(self, label: dict[str, Any], parent: str | None = None) -> None:
        self._open("label")
        self._text("name", label["name"])
        self._text("type", label["type"])
        self._open("attributes")
        for attribute in label["attributes"]:
            self._open("attribute")
            for key, value in attribute.items():
                self._text(key, "\n".join(value) if isinstance(value, list) else str(value))
            self._close("attribute")
        self._close("attributes")
        if "svg" in label:
            self._text("svg", label["svg"])
        if parent is not None:
            self._text("parent", parent)
        self._close("label")
        for part in label.get("sublabels", ()):
            self._add_label(part, label["name"])

    def _add_object(self, entry: LabeledObject, keypoint_names: tuple[str, ...]) -> None:
        attributes = dict(label=entry.name, source="auto")
        if entry.keypoints is not None:
            name = "skeleton"
            self._open(name, **attributes, z_order=0)
            for number, (x, y, visible) in enumerate(entry.keypoints.tolist()):
                point = _point_name(keypoint_names, number)
                places = dict(outside=int(not visible), occluded=0, points=f"{_number(x)},{_number(y)}")
                self._open("points", label=point, source="auto", **places)
                self._close("points")
        else:
            name, shape = ("box", _box(entry.box)) if entry.mask is None else _region(entry.mask)
            self._open(name, **attributes, occluded=0, **shape, z_order=0)
        track = "" if entry.track is None else str(entry.track)
        for key, value in zip(_ATTRIBUTES, (f"{entry.score:.3f}", track)):
            if value:
                self._text("attribute", value, name=key)
        self._close(name)

    def _open(self, tag: str, /, **attributes: Any) -> None:
        self._xml.startElement(tag, AttributesImpl({key: str(value) for key, value in attributes.items()}))

    def _close(self, tag: str) -> None:
        self._xml.endElement(tag)
        self._xml.characters("\n")

    def _text(self, tag: str, text: str, /, **attributes: Any) -> None:
        self._open(tag, **attributes)
        self._xml.characters(text)
        self._close(tag)


def _number(value: float) -> str:
    return f"{value:.{_DIGITS}f}"


def _box(box: tuple[float, float, float, float]) -> dict[str, str]:
    return {key: _number(value) for key, value in zip(("xtl", "ytl", "xbr", "ybr"), box)}


def _region(mask: NDArray[np.bool_]) -> tuple[str, dict[str, Any]]:
    """A polygon where one is the mask, else the runs of its rows; the first run is of background."""
    outline = mask_outlines(mask)
    if outline.is_one_ring:
        points = ";".join(f"{_number(x)},{_number(y)}" for x, y in outline.outer[0])
        return "polygon", dict(points=points)
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    pixels = mask[top : top + height, left : left + width].ravel()
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    runs = np.diff(changes, prepend=0, append=len(pixels))
    return "mask", dict(rle=", ".join(map(str, runs)), left=left, top=top, width=width, height=height)


def _point_name(names: tuple[str, ...], number: int) -> str:
    return names[number] if names else f"keypoint_{number}"


def _labels(prediction: Prediction) -> list[dict[str, Any]]:
    """The labels of a task, as CVAT's label constructor has them."""
    attributes = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in _ATTRIBUTES
    ]
    if prediction.keypoints is None:
        return [{"name": name, "type": "any", "attributes": attributes} for name in prediction.classes]
    points = [_point_name(prediction.keypoint_names, i) for i in range(prediction.keypoints.shape[1])]
    return [
        {
            "name": name,
            "type": "skeleton",
            "attributes": attributes,
            "sublabels": [{"name": point, "type": "points", "attributes": []} for point in points],
            "svg": _svg(points, prediction.skeleton),
        }
        for name in prediction.classes
    ]


def _svg(points: list[str], skeleton: tuple[tuple[int, int], ...]) -> str:
    """The drawing of a skeleton, with its points on a circle; CVAT counts them from 1."""
    angles = [2 * math.pi * i / len(points) for i in range(len(points))]
    places = [(50 + 40 * math.sin(angle), 50 - 40 * math.cos(angle)) for angle in angles]
    lines = [
        f'<line x1="{places[a][0]:.2f}" y1="{places[a][1]:.2f}" x2="{places[b][0]:.2f}" y2="{places[b][1]:.2f}" '
        f'stroke="black" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}" stroke-width="0.5"></line>'
        for a, b in skeleton
    ]
    circles = [
        f'<circle r="1.5" stroke="black" fill="#b3b3b3" cx="{x:.2f}" cy="{y:.2f}" stroke-width="0.1" '
        f'data-type="element node" data-element-id="{i}" data-node-id="{i}" data-label-name={quoteattr(name)}></circle>'
        for i, ((x, y), name) in enumerate(zip(places, points), start=1)
    ]
    return "".join(lines + circles)
