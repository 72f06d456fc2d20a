// The network: loading its file, running it by ONNX Runtime Web, and computing probabilities.

import { PageError, decode, pixelsOf } from "./picture.js";
import { tensorOf } from "./preprocess.js";

/**
 * The contents of model.json.
 * @typedef {object} Card
 * @property {string} network
 * @property {string} file
 * @property {number} bytes
 * @property {"float32" | "int8"} precision
 * @property {string[]} class_names
 * @property {import("./preprocess.js").Preprocess} preprocess
 * @property {string | null} licence
 * @property {string | null} source
 * @property {{file: string, name: string}[]} samples
 * @property {{folder: string, script: string, version: string}} runtime
 */

/**
 * One class with its probability in [0, 1].
 * @typedef {object} Guess
 * @property {string} name
 * @property {number} probability
 */

/**
 * The result for a picture, with times in milliseconds: of preprocessing, and of the network alone.
 * @typedef {object} Answer
 * @property {Float64Array} probabilities one per class
 * @property {number} preparing
 * @property {number} running
 */

/** A network ready to run. */
export class Classifier {
  #runtime;
  #session;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * @param {Card} card
   * @param {number} threads
   * @param {any} runtime
   * @param {any} session
   */
  constructor(card, threads, runtime, session) {
    this.card = card;
    this.threads = threads;
    this.#runtime = runtime;
    this.#session = session;
  }

  /**
   * The answer for an image file, a decoded picture or the camera's current frame. Calls run one at a time.
   * @param {Blob | ImageBitmap | HTMLVideoElement} image
   * @returns {Promise<Answer>}
   */
  classify(image) {
    const answer = this.#last.then(() => this.#classify(image));
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  /** The preprocessed image, without running the network. @param {Blob | ImageBitmap | HTMLVideoElement} image */
  async prepare(image) {
    const picture = image instanceof Blob ? await decode(image) : image;
    try {
      return tensorOf(pixelsOf(picture), this.card.preprocess);
    } finally {
      if (picture !== image && picture instanceof ImageBitmap) picture.close();
    }
  }

  /**
   * The most probable classes, best first.
   * @param {Answer} answer
   * @param {number} count
   * @returns {Guess[]}
   */
  best({ probabilities }, count) {
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    return order.slice(0, count).map((n) => ({ name: this.card.class_names[n], probability: probabilities[n] }));
  }

  /** @param {Blob | ImageBitmap | HTMLVideoElement} image @returns {Promise<Answer>} */
  async #classify(image) {
    const start = performance.now();
    const input = await this.prepare(image);
    const ready = performance.now();
    const logits = await this.run(input);
    return { probabilities: softmax(logits), preparing: ready - start, running: performance.now() - ready };
  }

  /** The logits for one preprocessed image. @param {Float32Array} input @returns {Promise<Float32Array>} */
  async run(input) {
    const { mean, resolution } = this.card.preprocess;
    const tensor = new this.#runtime.Tensor("float32", input, [1, mean.length, resolution, resolution]);
    const [inputName] = this.#session.inputNames;
    const [outputName] = this.#session.outputNames;
    const outputs = await this.#session.run({ [inputName]: tensor });
    return outputs[outputName].data;
  }
}

/**
 * Load this page's network.
 * @param {(card: Card) => void} onCard called as soon as the network's description is loaded
 * @param {(part: number) => void} onProgress called with the fraction of the model file that is loaded
 * @returns {Promise<Classifier>}
 */
export async function openClassifier(onCard, onProgress) {
  /** @type {Card} */
  const card = await (await get("model.json")).json().catch(() => {
    throw new PageError("model.json is damaged; export the page again.");
  });
  onCard(card);
  try {
    const [runtime, model] = await Promise.all([loadRuntime(card), download(card, onProgress)]);
    const session = await runtime.InferenceSession.create(model, { executionProviders: ["wasm"] });
    const classifier = new Classifier(card, runtime.env.wasm.numThreads, runtime, session);
    const { mean, resolution } = card.preprocess;
    await classifier.run(new Float32Array(mean.length * resolution * resolution)); // the first run is slow
    return classifier;
  } catch (error) {
    if (error instanceof PageError) throw error;
    throw new PageError(`The model failed to load (${firstLine(error)}); export the page again, or try another browser.`);
  }
}

/** ONNX Runtime Web, with several threads if the browser allows them. @param {Card} card */
async function loadRuntime(card) {
  const folder = new URL(card.runtime.folder, import.meta.url).href;
  const runtime = await import(folder + card.runtime.script);
  runtime.env.logLevel = "error";
  runtime.env.wasm.wasmPaths = folder;
  runtime.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  return runtime;
}

/**
 * The model file, checked to be complete.
 * @param {Card} card
 * @param {(part: number) => void} onProgress
 */
async function download(card, onProgress) {
  const { body } = await get(card.file);
  if (body === null) throw new PageError(`${card.file} is empty; copy the whole folder again.`);
  const bytes = new Uint8Array(card.bytes);
  let done = 0;
  for (let reader = body.getReader(), part; !(part = await reader.read()).done; ) {
    if (done + part.value.length <= bytes.length) bytes.set(part.value, done);
    done += part.value.length;
    onProgress(Math.min(1, done / card.bytes));
  }
  if (done !== card.bytes) {
    throw new PageError(`${card.file} has ${done} bytes, not ${card.bytes}; copy the whole folder again.`);
  }
  return bytes;
}

/** @param {string} file a path relative to this page */
async function get(file) {
  const response = await fetch(new URL(file, import.meta.url)).catch(() => {
    throw new PageError(`${file} could not be loaded; is the server still running?`);
  });
  if (!response.ok) throw new PageError(`${file} could not be loaded (${response.status}); copy the whole folder again.`);
  return response;
}

/** @param {Float32Array} logits @returns {Float64Array} */
function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const exponents = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / total);
}

/** @param {unknown} error */
function firstLine(error) {
  return String(error instanceof Error ? error.message : error).split("\n")[0];
}
