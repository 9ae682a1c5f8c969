// Picture -> network input, as the description of the model states it: efftasks/runtime/preprocess.py in JavaScript.

import { resize } from "./resize.js";

/**
 * Where a picture lies in the network input: at the top left.
 *
 * @param {object} input `input` of the description.
 * @param {number} width of the picture, in pixels.
 * @param {number} height of the picture, in pixels.
 * @returns {{width, height, fittedWidth, fittedHeight, scaleX, scaleY}} sizes before and after, and their ratios.
 */
export function placeImage(input, width, height) {
  let [fittedWidth, fittedHeight] = [input.width, input.height];
  if (input.resize === "letterbox") {
    const scale = Math.min(input.height / height, input.width / width);
    fittedWidth = Math.max(1, Math.floor(width * scale + 0.5));
    fittedHeight = Math.max(1, Math.floor(height * scale + 0.5));
  }
  const [scaleX, scaleY] = [fittedWidth / width, fittedHeight / height];
  return { width, height, fittedWidth, fittedHeight, scaleX, scaleY };
}

/**
 * The numbers that the network takes.
 *
 * @param {{data, width, height}} image RGBA, as ImageData is.
 * @param {object} input `input` of the description.
 * @returns {{data, dims, type, place}} a batch of one, and where the picture lies in it.
 */
export function preprocess(image, input) {
  const place = placeImage(input, image.width, image.height);
  const fitted = resize(image, place.fittedWidth, place.fittedHeight);
  const { data, dims } = input.dtype === "uint8" ? toBytes(fitted, input) : toFloats(fitted, input);
  return { data, dims, type: input.dtype, place };
}

/** float32 (1, 3, H, W) or (1, H, W, 3): (pixel - mean) / std. */
function toFloats(image, input) {
  const { width, height } = input;
  const tables = normalizationTables(input);
  const order = input.color === "RGB" ? [0, 1, 2] : [2, 1, 0];
  const channelsLast = input.layout === "NHWC";
  const step = channelsLast ? 3 : 1;
  const data = new Float32Array(3 * width * height);
  for (let channel = 0; channel < 3; channel++) {
    const { values, pad } = tables[channel];
    const source = order[channel];
    const start = channelsLast ? channel : channel * width * height;
    for (let y = 0; y < height; y++) {
      const covered = y < image.height ? image.width : 0;
      let to = start + y * width * step;
      let from = 4 * y * image.width + source;
      for (let x = 0; x < covered; x++, to += step, from += 4) data[to] = values[image.data[from]];
      for (let x = covered; x < width; x++, to += step) data[to] = pad;
    }
  }
  return { data, dims: channelsLast ? [1, height, width, 3] : [1, 3, height, width] };
}

/** What each of the 256 values becomes, in the arithmetic of float32, and what the padding is. */
function normalizationTables(input) {
  return [0, 1, 2].map((channel) => {
    const [mean, std] = [input.mean[channel], input.std[channel]];
    const factor = Math.fround(1 / std);
    const offset = Math.fround(mean / std);
    const values = Float32Array.from({ length: 256 }, (_, value) => Math.fround(value * factor) - offset);
    return { values, pad: (input.pad_value - mean) / std };
  });
}

/** uint8 (1, H, W, 4): RGBA or BGRA as it is; the network normalizes, and leaves the fourth channel out. */
function toBytes(image, input) {
  const data = new Uint8Array(4 * input.width * input.height).fill(input.pad_value);
  for (let y = 0; y < image.height; y++) {
    data.set(image.data.subarray(4 * y * image.width, 4 * (y + 1) * image.width), 4 * y * input.width);
  }
  if (input.color === "BGR") {
    for (let i = 0; i < data.length; i += 4) [data[i], data[i + 2]] = [data[i + 2], data[i]];
  }
  return { data, dims: [1, input.height, input.width, 4] };
}
