// The camera: its video is shown, and its frames are passed on one by one.

import { PageError } from "./picture.js";

/** @type {Record<string, string>} */
const REFUSALS = {
  NotAllowedError: "The camera was refused; allow it in the browser's settings for this page.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera is in use by another program.",
};

/** A camera that can be started and stopped. */
export class Camera {
  /** @type {MediaStream | null} */
  #stream = null;

  /** @param {HTMLVideoElement} film the element that shows it */
  constructor(film) {
    this.film = film;
  }

  get running() {
    return this.#stream !== null;
  }

  /** Start it; `onEnd` is called if the device is disconnected. @param {() => void} onEnd */
  async start(onEnd) {
    if (!navigator.mediaDevices) {
      throw new PageError("Browsers give the camera only to pages from this device (127.0.0.1) or from https addresses.");
    }
    const constraints = { video: { facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 } } };
    const stream = await navigator.mediaDevices.getUserMedia(constraints).catch((error) => {
      throw new PageError(REFUSALS[error.name] ?? `The camera could not be started (${error.name}).`);
    });
    this.#stream = stream;
    stream.getVideoTracks().forEach((track) => track.addEventListener("ended", onEnd));
    this.film.srcObject = stream;
    await this.film.play();
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.film.srcObject = null;
  }

  /** Pass on frames, each as soon as the previous one is done, until it is stopped. @param {() => Promise<void>} use */
  async each(use) {
    const stream = this.#stream;
    while (this.#stream !== null && this.#stream === stream) {
      if (this.film.videoWidth > 0) await use();
      await new Promise((resolve) => requestAnimationFrame(resolve)); // keeps the page responsive, and pauses while hidden
    }
  }
}
