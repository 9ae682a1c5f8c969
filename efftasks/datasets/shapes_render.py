"""Rendering of the built-in data set: textures, colors, light and the sensor."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MUTED", "VIVID", "add_shadow", "background", "color_unlike", "expose", "fill", "paint", "texture"]

Float = NDArray[np.float32]

MUTED, VIVID = (0.0, 0.35), (0.5, 1.0)  # ranges of saturation of backgrounds and of objects
_KINDS = ("flat", "gradient", "noise", "stripes", "checker", "blobs")


def texture(rng: np.random.Generator, kind: str, height: int, width: int, period: float) -> Float:
    """A gray pattern (height, width) in [-1, 1]; ``period`` is the size of its features in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    if kind == "flat":
        return np.zeros((height, width), np.float32)
    if kind == "gradient":
        ramp = cos * (x / max(width, 1) - np.float32(0.5)) + sin * (y / max(height, 1) - np.float32(0.5))
        return np.clip(ramp * np.float32(1.6), -1, 1)
    if kind == "noise":
        coarse, fine = _cloud(rng, height, width, period), _cloud(rng, height, width, period / 3)
        return coarse * np.float32(0.6) + fine * np.float32(0.4)
    if kind == "blobs":
        return np.tanh(_cloud(rng, height, width, period * 1.6) * np.float32(6))
    wave = np.float32(2 * np.pi / max(period, 2.5))
    phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    edge = np.float32(rng.uniform(1.0, 4.0))  # from soft to hard edges
    first = np.tanh(np.sin((cos * x + sin * y) * wave + phase[0]) * edge)
    if kind == "stripes":
        return first
    if kind == "checker":
        return first * np.tanh(np.sin((cos * y - sin * x) * wave + phase[1]) * edge)
    raise ValueError(f"kind: got {kind!r}, expected one of {_KINDS}")


def _cloud(rng: np.random.Generator, height: int, width: int, period: float) -> Float:
    """Smooth noise in about [-1, 1]."""
    grid = (max(2, int(height / max(period, 1)) + 2), max(2, int(width / max(period, 1)) + 2))
    coarse = rng.uniform(-1, 1, grid).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def random_color(rng: np.random.Generator, saturation: tuple[float, float]) -> Float:
    """(3,) BGR in 0..255: any hue, dark to bright, with a saturation (0 gray to 1) from a range."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(0.3, 1.0)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * np.float32(255)


def color_unlike(rng: np.random.Generator, other: Float, distance: float, saturation: tuple[float, float]) -> Float:
    """A color at least ``distance`` (Euclidean, BGR 0..255) from another one, or the farthest of eight tries."""
    best = random_color(rng, saturation)
    for _ in range(7):
        if np.linalg.norm(best - other) >= distance:
            break
        best = max(best, random_color(rng, saturation), key=lambda color: float(np.linalg.norm(color - other)))
    return best


def fill(
    rng: np.random.Generator,
    base: Float,
    height: int,
    width: int,
    strength: float,
    period: float,
    saturation: tuple[float, float],
) -> Float:
    """A colored texture (height, width, 3) around a base color; ``strength`` 0..1 is how much it deviates from it."""
    pattern = texture(rng, _KINDS[rng.integers(len(_KINDS))], height, width, period)
    swing = (random_color(rng, saturation) - base) * np.float32(strength)
    return base + swing * (pattern * np.float32(0.5) + np.float32(0.5))[..., None]


def background(rng: np.random.Generator, size: int) -> Float:
    """(size, size, 3) BGR in 0..255: two textures of different scale over one muted color."""
    base = random_color(rng, MUTED)
    canvas = fill(rng, base, size, size, rng.uniform(0.1, 0.5), size * rng.uniform(0.08, 0.5), MUTED)
    fine = texture(rng, _KINDS[rng.integers(1, len(_KINDS))], size, size, size * rng.uniform(0.02, 0.09))
    canvas += (fine * np.float32(rng.uniform(2, 14)))[..., None]
    if rng.random() < 0.4:  # a scene out of focus behind the objects
        canvas = cv2.GaussianBlur(canvas, (0, 0), size * rng.uniform(0.004, 0.012))
    return canvas


def paint(canvas: Float, left: int, top: int, alpha: Float, color: Float) -> None:
    """Blend a color, (3,) or (h, w, 3), over the canvas in place; parts outside the canvas are cut off."""
    rows, columns = _inside(canvas, left, top, alpha)
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    opacity = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    ink = color
    if color.ndim == 3:
        ink = color[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    block = canvas[rows, columns]
    block += (ink - block) * opacity


def add_shadow(canvas: Float, left: int, top: int, alpha: Float, offset: tuple[int, int], depth: float) -> None:
    """Darken the canvas in place by a soft shadow of ``alpha``, ``offset`` (x, y) pixels away, ``depth`` 0..1."""
    blur = max(1.0, 0.05 * max(alpha.shape))
    pad = int(3 * blur) + 1
    soft = cv2.GaussianBlur(cv2.copyMakeBorder(alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT), (0, 0), blur)
    paint(canvas, left - pad + offset[0], top - pad + offset[1], soft * np.float32(depth), np.zeros(3, np.float32))


def _inside(canvas: Float, left: int, top: int, alpha: Float) -> tuple[slice, slice]:
    rows = slice(max(top, 0), min(top + alpha.shape[0], canvas.shape[0]))
    return rows, slice(max(left, 0), min(left + alpha.shape[1], canvas.shape[1]))


def expose(rng: np.random.Generator, canvas: Float) -> NDArray[np.uint8]:
    """Simulate a photograph of the scene: uneven light, contrast, color cast, blur, sensor noise; uint8."""
    height, width = canvas.shape[:2]
    light = texture(rng, ("gradient", "noise")[rng.integers(2)], height, width, max(height, width) * 0.6)
    light = np.float32(1) + light * np.float32(rng.uniform(0.0, 0.35))
    gain = rng.uniform(0.7, 1.15) * rng.uniform(0.92, 1.08, 3)
    picture = (canvas - 128) * gain.astype(np.float32) + np.float32(128 + rng.uniform(-28, 28))
    picture *= light[..., None]
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), max(height, width) / 192 * rng.uniform(0.3, 0.9))
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(np.exp(rng.uniform(0.3, 2.0)))
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
