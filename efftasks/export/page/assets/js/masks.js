// Masks of objects in pixels of the picture: efftasks/imaging/masks.py in JavaScript.

const MASK_STRIDE = 4; // pixels of the network input along the side of a cell

/**
 * The mask of an object of `decode` in pixels of the picture, computed when it is first asked for.
 *
 * @returns {{left, top, width, height, inside: Uint8Array, pixels: number}} as of `maskInBox`, and how many are inside.
 */
export function maskOf(object, place) {
  if (!object.inImage) {
    const window = maskInBox(object.mask, object.box, place);
    object.inImage = { ...window, pixels: window.inside.reduce((sum, value) => sum + value, 0) };
  }
  return object.inImage;
}

/**
 * Upsample and threshold a mask, and clip it to its box.
 *
 * @param {{data: Float32Array, dims: number[]}} mask logits (h, w) of cells.
 * @param {number[]} box xyxy in pixels of the picture.
 * @param {object} place where the picture lies in the network input, of `placeImage`.
 * @returns {{left, top, width, height, inside: Uint8Array}} the pixels that the box touches; 1 for those of the object.
 */
export function maskInBox(mask, box, place) {
  const left = Math.max(Math.floor(box[0]), 0);
  const top = Math.max(Math.floor(box[1]), 0);
  const width = Math.max(Math.min(Math.ceil(box[2]), place.width) - left, 0);
  const height = Math.max(Math.min(Math.ceil(box[3]), place.height) - top, 0);
  const inside = new Uint8Array(width * height);
  const [cellRows, cellColumns] = mask.dims;
  const columns = samples(left, width, place.scaleX, cellColumns);
  const rows = samples(top, height, place.scaleY, cellRows);
  const across = new Map(); // row of cells -> its logits at the columns of the box
  for (let y = 0, i = 0; y < height; y++) {
    const cell = rows.cell[y];
    const upper = interpolateRow(mask, cell, columns, across);
    const lower = interpolateRow(mask, Math.min(cell + 1, cellRows - 1), columns, across);
    for (let x = 0; x < width; x++, i++) {
      const value = Math.fround(Math.fround(Math.fround(lower[x] - upper[x]) * rows.fraction[y]) + upper[x]);
      inside[i] = value > 0 ? 1 : 0;
    }
  }
  return { left, top, width, height, inside };
}

function interpolateRow(mask, row, columns, across) {
  if (!across.has(row)) {
    const last = mask.dims[1] - 1;
    const start = row * mask.dims[1];
    const values = Float32Array.from(columns.cell, (cell, x) => {
      const value = mask.data[start + cell];
      const next = mask.data[start + Math.min(cell + 1, last)];
      return Math.fround(Math.fround(next - value) * columns.fraction[x]) + value;
    });
    across.set(row, values);
  }
  return across.get(row);
}

/** Positions of pixels along one side, in cells: the last cell whose center is not beyond, and the way to the next. */
function samples(first, count, scale, cells) {
  const cell = new Int32Array(count);
  const fraction = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const position = Math.min(Math.max((first + i + 0.5) * (scale / MASK_STRIDE) - 0.5, 0), cells - 1);
    cell[i] = Math.floor(position);
    fraction[i] = position - cell[i];
  }
  return { cell, fraction };
}
