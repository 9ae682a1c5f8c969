// Label maps in pixels of the picture: efftasks/imaging/label_maps.py in JavaScript, an index rule in integers.

/** The index of the cell that contains the center of each pixel along one side. All numbers are below 2 ** 53. */
function cellIndices(pixels, covered, extent, cells) {
  const divisor = 2 * pixels * extent;
  return Int32Array.from({ length: pixels }, (_, i) => Math.floor(((2 * i + 1) * covered * cells) / divisor));
}

/**
 * Resize a label map of the network input to the picture.
 *
 * @param {{labels: Uint8Array, width: number, height: number}} map of the network input.
 * @param {object} place where the picture lies in the network input, of `placeImage`.
 * @param {{width: number, height: number}} input size of the network input.
 * @returns {Uint8Array} a label for each pixel of the picture.
 */
export function labelsOnImage(map, place, input) {
  const columns = cellIndices(place.width, place.fittedWidth, input.width, map.width);
  const rows = cellIndices(place.height, place.fittedHeight, input.height, map.height);
  const result = new Uint8Array(place.width * place.height);
  for (let y = 0, i = 0; y < place.height; y++) {
    const start = rows[y] * map.width;
    for (let x = 0; x < place.width; x++, i++) result[i] = map.labels[start + columns[x]];
  }
  return result;
}

/** The class with the highest score of each cell, the first one of several: scores (C, h, w) -> labels (h, w). */
export function scoresToLabels(scores, classes) {
  const cells = scores.length / classes;
  const labels = new Uint8Array(cells);
  for (let i = 0; i < cells; i++) {
    let best = 0;
    for (let k = 1; k < classes; k++) if (scores[k * cells + i] > scores[best * cells + i]) best = k;
    labels[i] = best;
  }
  return labels;
}
