// Drawing a prediction over its picture, at the resolution of the screen.

import { css, objectColor, semanticColor, textColor } from "./colors.js";
import { maskOf } from "./masks.js";

const FONT = '600 13px system-ui, "Segoe UI", Roboto, sans-serif';

/**
 * Draw a picture and what was predicted.
 *
 * @param {HTMLCanvasElement} canvas is resized to the picture.
 * @param {HTMLCanvasElement} picture at its own size.
 * @param {{objects, segmentation, place}} prediction its objects are those to draw.
 * @param {object} spec the description of the model.
 * @param {{threshold, opacity, selected, room: {width, height}}} options least score of keypoints, opacity of masks and
 *   label maps, the object to stress or null, and the room on the page in CSS pixels.
 */
export function drawPrediction(canvas, picture, prediction, spec, options) {
  const scale = Math.min(options.room.width / picture.width, options.room.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / picture.width, 0, 0, canvas.height / picture.height, 0, 0);
  context.drawImage(picture, 0, 0);
  if (prediction.segmentation) drawLabelMap(context, prediction, spec, options.opacity);
  const largeFirst = [...prediction.objects].sort((a, b) => area(b.box) - area(a.box)); // small ones stay visible
  for (const object of largeFirst) if (object.mask) drawMask(context, object, prediction.place, options.opacity);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const pen = { scale, line: Math.max(1.5, Math.min(width, height) / 300), selected: options.selected, width, height };
  for (const object of largeFirst) drawBox(context, object, pen);
  for (const object of largeFirst) {
    if (object.keypoints) drawKeypoints(context, object, spec.skeleton, options.threshold, pen);
  }
  const occupied = [];
  for (const object of largeFirst.reverse()) drawCaption(context, object, spec.classes, pen, occupied);
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

function drawLabelMap(context, { segmentation, place }, spec, opacity) {
  const { width, height } = place;
  const names = spec.semantic_classes.length ? spec.semantic_classes : spec.classes;
  const colors = new Uint32Array(256); // ignored pixels, beyond the names, stay transparent
  names.forEach((_, k) => (colors[k] = pixelOf(semanticColor(k, spec.palette), opacity)));
  paint(context, 0, 0, width, height, (pixels) => {
    for (let i = 0; i < pixels.length; i++) pixels[i] = colors[segmentation[i]];
  });
}

function drawMask(context, object, place, opacity) {
  const { left, top, width, height, inside } = maskOf(object, place);
  if (!width || !height) return;
  const [edge, fill] = [1, opacity].map((alpha) => pixelOf(objectColor(object.label), alpha));
  paint(context, left, top, width, height, (pixels) => {
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (inside[i]) pixels[i] = isEdge(inside, x, y, width, height) ? edge : fill;
      }
    }
  });
}

/** Whether a pixel of a mask has a neighbor that is not in it. */
function isEdge(inside, x, y, width, height) {
  const i = y * width + x;
  const within = x > 0 && y > 0 && x < width - 1 && y < height - 1;
  return !within || !(inside[i - 1] && inside[i + 1] && inside[i - width] && inside[i + width]);
}

/** A color as a pixel of ImageData in 32 bits, of which the lowest are the red ones: browsers are little-endian. */
function pixelOf([r, g, b], alpha) {
  return (Math.round(255 * alpha) << 24) | (b << 16) | (g << 8) | r;
}

/** Blend pixels over the picture. */
function paint(context, left, top, width, height, fill) {
  const layer = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  fill(new Uint32Array(image.data.buffer));
  layer.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(layer, left, top);
}

function drawBox(context, object, pen) {
  const [left, top, right, bottom] = object.box.map((value) => value * pen.scale);
  const stressed = object === pen.selected;
  if (stressed) {
    context.lineWidth = pen.line * 4;
    context.strokeStyle = "#fff";
    context.strokeRect(left, top, right - left, bottom - top);
  }
  context.lineWidth = stressed ? pen.line * 2 : pen.line;
  context.strokeStyle = css(objectColor(object.label));
  context.strokeRect(left, top, right - left, bottom - top);
}

function drawKeypoints(context, object, skeleton, threshold, pen) {
  const points = object.keypoints.map(([x, y, score]) => ({ x: x * pen.scale, y: y * pen.scale, shown: score >= threshold }));
  for (const [style, width] of [["#000", pen.line + 2], [css(objectColor(object.label)), pen.line]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    for (const [a, b] of skeleton.map((pair) => pair.map((k) => points[k]))) {
      if (a.shown && b.shown) stroke(context, () => (context.moveTo(a.x, a.y), context.lineTo(b.x, b.y)));
    }
  }
  points.forEach(({ x, y, shown }, k) => {
    if (!shown) return;
    context.lineWidth = 1;
    context.strokeStyle = "#000";
    context.fillStyle = css(objectColor(k));
    stroke(context, () => context.arc(x, y, pen.line + 1.5, 0, 2 * Math.PI));
    context.fill();
  });
}

function stroke(context, path) {
  context.beginPath();
  path();
  context.stroke();
}

/** A caption where it covers least of those already drawn. */
function drawCaption(context, object, names, pen, occupied) {
  const [left, top, right, bottom] = object.box.map((value) => value * pen.scale);
  const text = `${names[object.label] ?? object.label} ${object.score.toFixed(2)}`;
  context.font = FONT;
  const [width, height] = [context.measureText(text).width + 8, 18];
  const places = [
    [left, top - height],
    [left, top],
    [left, bottom],
    [right - width, top - height],
    [right - width, bottom - height],
  ].map(([x, y]) => [clamp(x, pen.width - width), clamp(y, pen.height - height)]);
  const costs = places.map(([x, y]) => occupied.reduce((sum, other) => sum + overlap([x, y, x + width, y + height], other), 0));
  const [x, y] = places[costs.indexOf(Math.min(...costs))];
  occupied.push([x, y, x + width, y + height]);
  const color = objectColor(object.label);
  context.fillStyle = css(color);
  context.fillRect(x, y, width, height);
  context.fillStyle = textColor(color);
  context.textBaseline = "middle";
  context.fillText(text, x + 4, y + height / 2 + 0.5);
}

function clamp(value, most) {
  return Math.min(Math.max(value, 0), Math.max(most, 0));
}

function overlap(a, b) {
  return Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
}
