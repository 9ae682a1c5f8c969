// The page: what its controls do.

import { figures } from "./card.js";
import { drawPrediction } from "./draw.js";
import { loadModel, megabytes } from "./model.js";
import { Camera, readPicture } from "./pictures.js";
import { element, legend, objectRows, summary } from "./results.js";

const byId = (id) => document.getElementById(id);

class App {
  #model = null;
  #waiting = null; // a picture that was chosen before the model was there
  #shown = null; // {picture: canvas, prediction}
  #selected = null;
  #turn = 0; // of the latest picture
  #camera = new Camera();

  async start() {
    this.#listen();
    try {
      this.#model = await loadModel((text) => this.#setStatus(text));
    } catch (error) {
      this.#setStatus("");
      return this.#fail(error);
    }
    this.#describe();
    this.#setStatus("Ready");
    document.body.dataset.state = "ready";
    if (this.#waiting) await this.#open(this.#waiting);
  }

  #listen() {
    byId("file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // the same file may be chosen again
      if (file) this.#open(file);
    });
    byId("camera").addEventListener("click", () => this.#toggleCamera());
    for (const id of ["threshold", "opacity"]) byId(id).addEventListener("input", () => this.#show());
    const stage = byId("stage");
    const over = (event, inside) => (event.preventDefault(), stage.classList.toggle("over", inside));
    addEventListener("dragover", (event) => over(event, true));
    addEventListener("dragleave", (event) => over(event, event.relatedTarget !== null));
    addEventListener("drop", (event) => (over(event, false), this.#openDropped(event.dataTransfer)));
    addEventListener("paste", (event) => event.clipboardData.files.length && this.#openDropped(event.clipboardData));
    addEventListener("resize", () => this.#show());
  }

  #describe() {
    const { spec } = this.#model;
    const [file] = spec.files;
    document.title = `${spec.task}: ${spec.source.config ?? file.name}`;
    byId("title").textContent = spec.task[0].toUpperCase() + spec.task.slice(1);
    byId("subtitle").textContent = `${spec.source.config ?? file.name}, ${spec.precision}, ${megabytes(file.bytes)}`;
    const rows = figures(spec, this.#model).flatMap(([name, value]) => [
      element("dt", { textContent: name }),
      element("dd", { textContent: value, title: value }),
    ]);
    byId("figures").replaceChildren(...rows);
    const outputs = spec.outputs.map(({ name }) => name);
    const finds = outputs.includes("boxes");
    byId("objects").hidden = byId("confidence").hidden = !finds;
    byId("areas").hidden = !outputs.some((name) => ["segmentation", "logits"].includes(name));
    byId("opacity-field").hidden = byId("areas").hidden && !outputs.includes("masks");
    if (spec.input.pixel_range) {
      this.#note(`This model was trained on pictures with values of ${spec.input.pixel_range.join(" to ")}. A browser ` +
        "reads 8 bits: results may differ from those of the runtime.");
    }
  }

  #openDropped(transfer) {
    const [file] = transfer.files;
    if (file) return this.#open(file);
    return this.#fail(new Error("That was no file. Drop a picture from a folder of this device."));
  }

  async #open(file) {
    this.#stopCamera();
    if (!this.#model) {
      this.#waiting = file;
      return;
    }
    this.#clearMessage();
    document.body.dataset.state = "busy";
    this.#setStatus("Running …");
    try {
      await this.#predict(await readPicture(file));
      this.#setStatus(file.name ?? "");
    } catch (error) {
      this.#setStatus("");
      this.#fail(error);
    }
    document.body.dataset.state = "ready";
  }

  async #predict(image) {
    const turn = ++this.#turn;
    const prediction = await this.#model.predict(image);
    if (turn !== this.#turn) return; // another picture was chosen meanwhile
    const picture = element("canvas", { width: image.width, height: image.height });
    picture.getContext("2d").putImageData(image, 0, 0);
    this.#shown = { picture, prediction };
    this.#selected = null;
    this.#show();
  }

  async #toggleCamera() {
    if (this.#camera.running) return this.#stopCamera();
    this.#clearMessage();
    try {
      await this.#camera.start();
    } catch (error) {
      return this.#fail(error);
    }
    byId("camera").textContent = "Stop the camera";
    byId("summary").ariaLive = "off"; // screen readers would read every frame
    this.#setStatus("Camera");
    while (this.#camera.running) {
      try {
        if (this.#model) await this.#predict(this.#camera.frame());
      } catch (error) {
        this.#stopCamera();
        this.#fail(error);
      }
      await new Promise(requestAnimationFrame);
    }
  }

  #stopCamera() {
    this.#camera.stop();
    byId("camera").textContent = "Use the camera";
    byId("summary").ariaLive = "polite";
  }

  /** Draw and list what there is, at the present settings. */
  #show() {
    const threshold = Number(byId("threshold").value);
    byId("threshold-value").textContent = threshold.toFixed(2);
    byId("opacity-value").textContent = Number(byId("opacity").value).toFixed(2);
    if (!this.#shown) return;
    const { spec } = this.#model;
    const { prediction } = this.#shown;
    const objects = prediction.objects.filter(({ score }) => score >= threshold);
    const start = performance.now();
    this.#draw(objects, threshold);
    const drawn = performance.now() - start;
    const rows = objectRows({ ...prediction, objects }, spec.classes, (object) => {
      this.#selected = object;
      this.#draw(objects, threshold);
    });
    byId("rows").replaceChildren(...rows);
    if (prediction.segmentation) byId("legend").replaceChildren(...legend(prediction.segmentation, spec));
    const text = summary(objects, prediction.segmentation, spec.classes);
    byId("view").ariaLabel = text;
    if (byId("summary").textContent !== text) byId("summary").textContent = text;
    this.#showTimes({ ...prediction.times, draw: drawn });
  }

  #draw(objects, threshold) {
    const { picture, prediction } = this.#shown;
    byId("view").hidden = false;
    byId("invitation").hidden = true;
    drawPrediction(byId("view"), picture, { ...prediction, objects }, this.#model.spec, {
      threshold,
      opacity: Number(byId("opacity").value),
      selected: this.#selected,
      room: { width: byId("stage").clientWidth, height: Math.max(240, 0.72 * innerHeight) },
    });
  }

  #showTimes({ preprocess, run, decode, draw }) {
    const total = preprocess + run + decode + draw;
    for (const [id, value] of Object.entries({ preprocess, run, draw: decode + draw, total })) {
      byId(`time-${id}`).textContent = `${value.toFixed(value < 10 ? 1 : 0)} ms`;
    }
  }

  #setStatus(text) {
    byId("status").textContent = text;
  }

  #fail(error) {
    console.error(error);
    this.#note(error.message);
    byId("message").classList.add("error");
    if (!this.#model) document.body.dataset.state = "failed";
  }

  #note(text) {
    byId("message").textContent = text;
    byId("message").hidden = false;
  }

  #clearMessage() {
    byId("message").hidden = true;
    byId("message").classList.remove("error");
  }
}

new App().start();
