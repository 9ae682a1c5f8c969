// Pictures from files and from the camera, as ImageData.

const LONGEST_SIDE = 16384; // of a canvas, in pixels

/**
 * Decode a file, turned as its Exif orientation says. Colors are those of the file, without its profile, as in training.
 *
 * @param {Blob} file
 * @returns {Promise<ImageData>}
 */
export async function readPicture(file) {
  const name = file.name ?? "the picture";
  if (file.size === 0) throw new Error(`${name} is empty.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not a picture that this browser can read. Try JPEG, PNG or WebP.`);
  }
  try {
    const { width, height } = bitmap;
    if (Math.max(width, height) > LONGEST_SIDE) {
      throw new Error(`${name} has ${width} × ${height} pixels; a browser takes ${LONGEST_SIDE} a side at most.`);
    }
    return pixelsOf(bitmap, width, height, name);
  } finally {
    bitmap.close();
  }
}

function pixelsOf(source, width, height, name) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  try {
    const context = canvas.getContext("2d", { willReadFrequently: true, alpha: true });
    context.drawImage(source, 0, 0);
    return context.getImageData(0, 0, width, height);
  } catch (error) {
    throw new Error(`${name} could not be read (${error.message}); with ${width} × ${height} pixels it may be too large.`);
  }
}

/** Frames of the camera, one after another. */
export class Camera {
  #video = document.createElement("video");

  get running() {
    return this.#video.srcObject !== null;
  }

  /** Ask for the camera, and wait for its first frame. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the camera to pages of https and localhost alone.");
    }
    const stream = await openCamera();
    Object.assign(this.#video, { srcObject: stream, muted: true, playsInline: true });
    try {
      await this.#video.play();
    } catch (error) {
      this.stop();
      throw new Error(`The camera does not start (${error.message}).`);
    }
  }

  stop() {
    for (const track of this.#video.srcObject?.getTracks() ?? []) track.stop();
    this.#video.srcObject = null;
  }

  /** The picture of this moment: ImageData. */
  frame() {
    return pixelsOf(this.#video, this.#video.videoWidth, this.#video.videoHeight, "The camera");
  }
}

async function openCamera() {
  const reasons = {
    NotAllowedError: "The camera was not allowed; allow it in the address bar of the browser, and try again.",
    NotFoundError: "There is no camera on this device.",
    NotReadableError: "The camera is in use by another program.",
  };
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    throw new Error(reasons[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
}
