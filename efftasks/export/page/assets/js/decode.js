// Network outputs -> objects and label map in pixels of the picture: what efftasks/runtime does after the session.

import { labelsOnImage, scoresToLabels } from "./label_maps.js";

/**
 * @param {Object<string, {data, dims}>} outputs of the network, by their names, for a batch of one.
 * @param {object} spec the description of the model.
 * @param {object} place where the picture lies in the network input, of `placeImage`.
 * @returns {{objects: object[], segmentation: Uint8Array | null, place}} objects by descending score, each with `box`
 *   (xyxy), `score`, `label` and, where the model gives them, `mask` (logits of cells) and `keypoints` ([x, y, score]);
 *   boxes and keypoints are in pixels of the picture, as is `segmentation`, a label for each pixel.
 */
export function decode(outputs, spec, place) {
  const decoded = spec.decoder ? topPairs(outputs, spec.decoder.max_detections) : outputs;
  return {
    objects: decoded.scores ? readObjects(decoded, place) : [],
    segmentation: readLabelMap(decoded, spec, place),
    place,
  };
}

function readObjects(outputs, place) {
  const { boxes, scores, labels, masks, keypoints } = outputs;
  return Array.from(scores.data, (score, k) => {
    const object = { box: boxInImage(boxes.data, 4 * k, place), score, label: Number(labels.data[k]) };
    if (masks) object.mask = rowOf(masks, k);
    if (keypoints) object.keypoints = keypointsInImage(rowOf(keypoints, k), place);
    return object;
  });
}

/** Row k of an output (1, K, ...), sharing its memory. */
function rowOf(output, k) {
  const dims = output.dims.slice(2);
  const size = dims.reduce((product, side) => product * side, 1);
  return { data: output.data.subarray(k * size, (k + 1) * size), dims };
}

/** A box of network pixels in pixels of the picture, clipped to it, in the arithmetic of float32. */
function boxInImage(boxes, start, place) {
  const scales = [place.scaleX, place.scaleY].map(Math.fround);
  const limits = [place.width, place.height];
  return [0, 1, 2, 3].map((side) => {
    const value = Math.fround(boxes[start + side] / scales[side % 2]);
    return Math.min(Math.max(value, 0), limits[side % 2]);
  });
}

/** Keypoints are not clipped: a joint may lie where the picture was cut off. */
function keypointsInImage({ data, dims }, place) {
  const scales = [place.scaleX, place.scaleY].map(Math.fround);
  return Array.from({ length: dims[0] }, (_, k) => [
    Math.fround(data[3 * k] / scales[0]),
    Math.fround(data[3 * k + 1] / scales[1]),
    data[3 * k + 2],
  ]);
}

function readLabelMap(outputs, spec, place) {
  const { segmentation, logits } = outputs;
  if (!segmentation && !logits) return null;
  const labels = segmentation ? segmentation.data : scoresToLabels(logits.data, logits.dims[1]);
  const [height, width] = (segmentation ?? logits).dims.slice(-2);
  return labelsOnImage({ labels, width, height }, place, spec.input);
}

/**
 * The best (candidate, class) pairs, best first; of pairs that tie, the one that comes first.
 *
 * @param {Object<string, {data, dims}>} outputs with `boxes` (1, A, 4) and `scores` (1, A, C) of all candidates; `masks`
 *   and `keypoints` have A rows, too. Others stay as they are.
 * @param {number} most how many pairs to keep.
 * @returns {Object<string, {data, dims}>} with K rows, and `labels`.
 */
export function topPairs(outputs, most) {
  const { data, dims } = outputs.scores;
  const classes = dims[2];
  const count = Math.min(most, data.length);
  const least = Float32Array.from(data).sort()[data.length - count];
  const chosen = [];
  data.forEach((score, pair) => score >= least && chosen.push(pair));
  const pairs = chosen.sort((a, b) => data[b] - data[a] || a - b).slice(0, count);
  const result = { ...outputs };
  for (const name of ["boxes", "masks", "keypoints"]) {
    if (outputs[name]) result[name] = takeRows(outputs[name], pairs.map((pair) => Math.floor(pair / classes)));
  }
  result.scores = { data: Float32Array.from(pairs, (pair) => data[pair]), dims: [1, count] };
  result.labels = { data: Int32Array.from(pairs, (pair) => pair % classes), dims: [1, count] };
  return result;
}

function takeRows(output, rows) {
  const first = rowOf(output, 0).data.length;
  const data = new Float32Array(rows.length * first);
  rows.forEach((row, k) => data.set(rowOf(output, row).data, k * first));
  return { data, dims: [1, rows.length, ...output.dims.slice(2)] };
}
