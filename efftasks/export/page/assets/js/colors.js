// The colors of efftasks/imaging: of objects and of label maps, [r, g, b].

const GOLDEN = 0.61803398875; // steps of the golden ratio on the hue circle never come close to an earlier one

/** The color of class `k` of objects, and of keypoint `k`. */
export function objectColor(k) {
  const hue = ((0.02 + k * GOLDEN) % 1) * 6;
  const saturation = [0.85, 0.6, 0.95][Math.floor(k / 2) % 3];
  const value = [1, 0.82][k % 2];
  return [5, 3, 1].map((offset) => {
    const t = (offset + hue) % 6;
    return Math.round(255 * value * (1 - saturation * Math.max(0, Math.min(t, 4 - t, 1))));
  });
}

/** The color of class `k` of a label map: of the description's palette, or that of Pascal VOC without black. */
export function semanticColor(k, palette) {
  if (palette.length) return palette[k] ?? [128, 128, 128];
  const color = [0, 0, 0];
  for (let place = 0; place < 3; place++) {
    for (let channel = 0; channel < 3; channel++) {
      color[channel] |= (((k + 1) >> (3 * place + channel)) & 1) << (7 - place);
    }
  }
  return color;
}

export function css([r, g, b], alpha = 1) {
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

/** Black or white, whichever can be read on a color. */
export function textColor([r, g, b]) {
  return 0.299 * r + 0.587 * g + 0.114 * b > 110 ? "#000" : "#fff";
}
