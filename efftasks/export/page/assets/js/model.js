// The exported model: its description, checked against its file, and a session of ONNX Runtime Web that runs it.

import { decode } from "./decode.js";
import { preprocess } from "./preprocess.js";
import { importModule, readBytes, readJson } from "./resources.js";

const SCHEMA = 2; // of the description
const SUPPORTED = {
  resize: ["letterbox", "stretch"],
  color: ["RGB", "BGR"],
  layout: ["NCHW", "NHWC"],
  dtype: ["float32", "uint8"],
};

/**
 * Load runtime and model.
 *
 * @param {(text: string) => void} report is called with what happens next.
 * @returns {Promise<{spec, runtime: string, threads: number, predict}>} the description, the version of the runtime,
 *   and a function ImageData -> prediction of `decode`, with `times` in milliseconds.
 */
export async function loadModel(report) {
  report("Loading the description of the model …");
  const spec = await readJson("model.json");
  checkSpec(spec);
  const file = spec.files[0];
  report(`Loading the model (${megabytes(file.bytes)}) …`);
  const bytes = await readBytes(file.name);
  await checkFile(bytes, file);
  report("Loading ONNX Runtime …");
  const ort = await importModule("ort/ort.wasm.bundle.min.mjs");
  ort.env.wasm.wasmBinary = await readBytes("ort/ort-wasm-simd-threaded.wasm");
  if (!globalThis.crossOriginIsolated) ort.env.wasm.numThreads = 1; // memory is shared in isolated pages alone
  report("Preparing the model …");
  const session = await createSession(ort, bytes);
  return {
    spec,
    runtime: ort.env.versions.web,
    threads: ort.env.wasm.numThreads,
    predict: (image) => predict(ort, session, spec, image),
  };
}

function checkSpec(spec) {
  if (spec.schema !== SCHEMA) {
    throw new Error(`model.json has schema ${spec.schema}, expected ${SCHEMA}: export page and model together.`);
  }
  for (const [name, values] of Object.entries(SUPPORTED)) {
    if (!values.includes(spec.input[name])) {
      throw new Error(`model.json: input.${name} is "${spec.input[name]}", expected ${values.join(" or ")}.`);
    }
  }
  if (spec.decoder && spec.decoder.name !== "top-pairs") {
    throw new Error(`model.json: decoder.name is "${spec.decoder.name}", expected "top-pairs".`);
  }
}

/** Browsers hash in secure contexts alone: https, localhost. */
async function checkFile(bytes, file) {
  if (bytes.byteLength !== file.bytes) {
    throw new Error(`${file.name} has ${bytes.byteLength} bytes, model.json states ${file.bytes}: copy both again.`);
  }
  if (!globalThis.crypto?.subtle) return;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const digest = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (digest !== file.sha256) {
    throw new Error(`${file.name} is not the file that model.json describes (SHA-256 ${digest.slice(0, 12)}…).`);
  }
}

async function createSession(ort, bytes) {
  try {
    return await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`ONNX Runtime Web failed: ${error.message}`);
  }
}

async function predict(ort, session, spec, image) {
  const start = performance.now();
  const { data, dims, type, place } = preprocess(image, spec.input);
  const tensor = new ort.Tensor(type, data, dims);
  const prepared = performance.now();
  const outputs = await session.run({ [spec.input.name]: tensor });
  const finished = performance.now();
  const prediction = decode(outputs, spec, place);
  const times = { preprocess: prepared - start, run: finished - prepared, decode: performance.now() - finished };
  for (const output of Object.values(outputs)) output.dispose();
  return { ...prediction, times };
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
