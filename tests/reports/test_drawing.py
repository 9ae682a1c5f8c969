"""Figures of reports with names that matplotlib would take for formulas or leave out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from efftasks.evaluation.records import EvaluationRecord
from efftasks.reports.curves import class_curve, pooled_curve
from efftasks.reports.drawing import draw_bars, draw_confusion, draw_curves, draw_lines
from efftasks.reports.matches import match

NAMES = (r"a$\frac$b", "US$ $x", "_inner", r"back\$lash")


def svg(uri: str) -> str:
    return base64.b64decode(uri.partition(",")[2]).decode()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name: str, record_of: Callable[..., EvaluationRecord]) -> None:
    """The SVG states each text that it draws in a comment."""
    matches = match(record_of([(0, "cat", (1, 1, 20, 20))], [(0, "cat", (1, 1, 20, 20), 0.9)]), "bbox")
    curve = replace(class_curve(matches, 0), name=name)
    drawn = [
        draw_curves([curve], pooled_curve(matches), 0.5),
        draw_confusion(np.eye(2), [name, "other"], np.eye(2)),
        draw_bars({name: 0.5}, "title"),
        draw_lines(np.linspace(0, 1, 3), {name: np.zeros(3)}, "title", "x"),
    ]
    for uri in drawn:
        assert name in [text.strip() for text in _texts(svg(uri))]


def _texts(text: str) -> list[str]:
    return [part.partition("-->")[0] for part in text.split("<!--")[1:]]
