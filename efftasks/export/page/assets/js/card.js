// The figures of the model, as its description has them.

import { megabytes } from "./model.js";

/**
 * @param {object} spec the description of the model.
 * @param {{runtime: string, threads: number}} model what runs it.
 * @returns {[string, string][]} names and values.
 */
export function figures(spec, model) {
  const { input } = spec;
  const size = spec.files.reduce((sum, file) => sum + file.bytes, 0);
  return [
    ["Task", spec.task],
    ["Input", `${input.width} × ${input.height}, ${input.dtype}, ${input.resize}`],
    ["Precision", quantization(spec)],
    ["Size", megabytes(size)],
    ...metrics(spec.verify),
    ["Verified", verification(spec.verify)],
    ["Runtime", `ONNX Runtime Web ${model.runtime}, WebAssembly, ${threads(model.threads)}`],
    ["Config", spec.source.config],
    ["SHA-256", spec.files[0].sha256],
    ["Checkpoint", spec.source.checkpoint_sha256],
    ["Versions", Object.entries(spec.versions).map((pair) => pair.join(" ")).join(", ")],
  ].filter(([, value]) => value);
}

function quantization(spec) {
  const images = spec.quantization?.calibration_images;
  return images ? `${spec.precision}, calibrated on ${images} images` : spec.precision;
}

function threads(count) {
  return count === 1 ? "1 thread" : `${count} threads`;
}

/** The first metrics of the file, and of the model that it was made of. */
function metrics({ metrics }) {
  return Object.entries(metrics?.artifact ?? {})
    .slice(0, 2)
    .map(([name, value]) => [name.split("/").pop(), beside(value, metrics.pytorch?.[name])]);
}

function beside(value, reference) {
  const text = value.toFixed(4);
  return reference === undefined ? text : `${text} (PyTorch: ${reference.toFixed(4)})`;
}

/** What the file was compared with, and how far it was from that; fields depend on task and precision. */
function verification(verify) {
  if (!verify.passed) return "no";
  const { images, detections, max_box_error_px: error, share, agreement } = verify;
  const facts = [
    detections && `${detections} detections`,
    images && `${images} images`,
    typeof error === "number" && `boxes within ${error.toPrecision(2)} px`,
    typeof share === "number" && `${(100 * share).toFixed(1)} % of detections agree`,
    typeof agreement === "number" && `${(100 * agreement).toFixed(2)} % of pixels agree`,
  ].filter(Boolean);
  return ["against PyTorch, in ONNX Runtime", facts.join(", ")].filter(Boolean).join(": ");
}
