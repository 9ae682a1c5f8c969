// Bilinear resizing of 8-bit pictures, in the integer arithmetic of OpenCV's INTER_LINEAR: the network was verified on
// pictures that OpenCV had resized, and a canvas resizes otherwise.

const ONE = 2048; // a weight of 1

/**
 * Resize a picture.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} image RGBA, as ImageData is; alpha is left out.
 * @param {number} width of the result, in pixels.
 * @param {number} height of the result, in pixels.
 * @returns {{data: Uint8ClampedArray, width: number, height: number}} RGBA with an alpha of 255.
 */
export function resize(image, width, height) {
  if (width === image.width && height === image.height) return opaque(image);
  const columns = columnSamples(image.width, width);
  const rows = rowSamples(image.height, height);
  const data = new Uint8ClampedArray(width * height * 4);
  let upper = new Int32Array(width * 3);
  let lower = new Int32Array(width * 3);
  let upperRow = -1;
  let lowerRow = -1;
  for (let y = 0; y < height; y++) {
    const first = rows.first[y];
    const second = rows.second[y];
    if (first === lowerRow) {
      [upper, lower] = [lower, upper];
      [upperRow, lowerRow] = [lowerRow, upperRow];
    }
    if (first !== upperRow) resizeRow(image, first, columns, upper);
    if (second !== lowerRow) resizeRow(image, second, columns, lower);
    upperRow = first;
    lowerRow = second;
    blendRows(upper, lower, rows.weight0[y], rows.weight1[y], data, y * width * 4);
  }
  return { data, width, height };
}

function opaque(image) {
  const data = new Uint8ClampedArray(image.data);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { data, width: image.width, height: image.height };
}

/** A row of the picture at the new width, in units of 1 / ONE. */
function resizeRow(image, row, columns, out) {
  const { data } = image;
  const start = row * image.width * 4;
  for (let x = 0, k = 0; x < columns.first.length; x++) {
    const a = start + 4 * columns.first[x];
    const b = start + 4 * columns.second[x];
    const weight0 = columns.weight0[x];
    const weight1 = columns.weight1[x];
    out[k++] = data[a] * weight0 + data[b] * weight1;
    out[k++] = data[a + 1] * weight0 + data[b + 1] * weight1;
    out[k++] = data[a + 2] * weight0 + data[b + 2] * weight1;
  }
}

/** OpenCV's rounding, which drops bits of each row before the sum. All products are below 2 ** 31. */
function blendRows(upper, lower, weight0, weight1, out, start) {
  for (let k = 0, i = start; k < upper.length; i++) {
    for (let channel = 0; channel < 3; channel++, k++, i++) {
      out[i] = (((weight0 * (upper[k] >> 4)) >> 16) + ((weight1 * (lower[k] >> 4)) >> 16) + 2) >> 2;
    }
    out[i] = 255;
  }
}

/** For every new column the two old ones it lies between, and their weights; beyond the edges the last one alone. */
function columnSamples(from, to) {
  return samples(from, to, (cell, fraction) => {
    if (cell < 0) return [0, 0, 0];
    if (cell >= from - 1) return [from - 1, from - 1, 0];
    return [cell, cell + 1, fraction];
  });
}

/** The same for rows: beyond the edges both are the last one, with the weights that they have. */
function rowSamples(from, to) {
  const inside = (row) => Math.min(Math.max(row, 0), from - 1);
  return samples(from, to, (cell, fraction) => [inside(cell), inside(cell + 1), fraction]);
}

function samples(from, to, place) {
  const scale = 1 / (to / from);
  const names = ["first", "second", "weight0", "weight1"];
  const result = Object.fromEntries(names.map((name) => [name, new Int32Array(to)]));
  for (let i = 0; i < to; i++) {
    const position = Math.fround((i + 0.5) * scale - 0.5);
    const cell = Math.floor(position);
    const [first, second, fraction] = place(cell, Math.fround(position - cell));
    result.first[i] = first;
    result.second[i] = second;
    result.weight0[i] = roundHalfEven(Math.fround(1 - fraction) * ONE);
    result.weight1[i] = roundHalfEven(fraction * ONE);
  }
  return result;
}

function roundHalfEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
