// Lists of what was predicted, for reading and for screen readers.

import { css, objectColor, semanticColor } from "./colors.js";
import { maskOf } from "./masks.js";

/** A new element with properties and children. */
export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function swatch(color) {
  const node = element("span", { className: "swatch", ariaHidden: "true" });
  node.style.backgroundColor = css(color);
  return node;
}

/**
 * A row for each object.
 *
 * @param {{objects, place}} prediction of `decode`.
 * @param {string[]} names of the classes.
 * @param {(object: object | null) => void} select is called with the object that is pointed at.
 * @returns {HTMLElement[]} rows of a table; their data has boxes and keypoints in pixels of the picture, and
 *   how many pixels masks have.
 */
export function objectRows({ objects, place }, names, select) {
  return objects.map((object) => {
    const [left, top, right, bottom] = object.box;
    const row = element(
      "tr",
      { tabIndex: 0 },
      element("td", {}, swatch(objectColor(object.label)), names[object.label] ?? String(object.label)),
      element("td", { className: "number", textContent: object.score.toFixed(2) }),
      element("td", { className: "number", textContent: [left, top].map(Math.round).join(", ") }),
      element("td", { className: "number", textContent: `${Math.round(right - left)} × ${Math.round(bottom - top)}` }),
    );
    Object.assign(row.dataset, { box: object.box.join(" "), score: object.score, label: object.label });
    if (object.mask) row.dataset.pixels = maskOf(object, place).pixels;
    if (object.keypoints) row.dataset.keypoints = object.keypoints.flat().join(" ");
    for (const event of ["mouseenter", "focus"]) row.addEventListener(event, () => select(object));
    for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => select(null));
    return row;
  });
}

/** The classes of a label map with their shares of the picture, the largest first: items of a list. */
export function legend(segmentation, spec) {
  const names = spec.semantic_classes.length ? spec.semantic_classes : spec.classes;
  const counts = new Array(names.length).fill(0);
  for (const label of segmentation) if (label < counts.length) counts[label]++;
  return names
    .map((name, label) => ({ name, label, count: counts[label] }))
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count)
    .map(({ name, label, count }) => {
      const share = `${((100 * count) / segmentation.length).toFixed(1)} %`;
      const item = element("li", {}, swatch(semanticColor(label, spec.palette)), element("span", { textContent: name }));
      item.append(element("span", { className: "number", textContent: share }));
      Object.assign(item.dataset, { label, pixels: count });
      return item;
    });
}

/** What is on the picture, in a sentence. */
export function summary(objects, segmentation, names) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${names[label] ?? label}`);
  if (parts.length) return `${objects.length} ${objects.length === 1 ? "object" : "objects"}: ${parts.join(", ")}`;
  return segmentation ? "Label map" : "No objects with this score";
}
