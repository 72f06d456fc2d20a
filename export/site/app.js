// The page: handlers for clicks, drops and pastes.

import { Camera } from "./camera.js";
import { openClassifier } from "./classifier.js";
import { PageError } from "./picture.js";
import { Timing, element, percent, say, showAnswer, showCard, showError } from "./view.js";

const SHOWN = 5; // classes
const SMALL = 128; // images with sides of up to this many pixels are shown enlarged

const timing = new Timing();
const camera = new Camera(element("film"));
let starting = false; // the browser is asking for permission to use the camera
let latest = 0; // number of the latest choice; answers for earlier ones are not shown

element("unstarted").remove();
say("Loading the model.");
element("loading").hidden = false;

/** A promise of this page's network. */
export const classifier = openClassifier(welcome, (part) => { element("loading").value = part; });

classifier.then(
  () => say("Ready: choose an image."),
  (error) => { say(""); complain(error); },
).finally(() => { element("loading").hidden = true; });

/** @param {import("./classifier.js").Card} card */
function welcome(card) {
  showCard(card);
  element("sampling").hidden = card.samples.length === 0;
  element("samples").replaceChildren(...card.samples.map(sampleItem));
}

/** @param {{file: string, name: string}} sample */
function sampleItem({ file, name }) {
  const address = new URL(file, import.meta.url).href;
  const [item, button, image, label] = ["li", "button", "img", "span"].map((tag) => document.createElement(tag));
  Object.assign(image, { src: address, alt: "" });
  label.textContent = name;
  button.setAttribute("type", "button");
  button.title = name;
  button.append(image, label);
  button.addEventListener("click", () => look(() => fetch(address).then((response) => response.blob()), name));
  item.append(button);
  return item;
}

/**
 * Classify an image file and show the result.
 * @param {() => Promise<Blob>} get
 * @param {string} name
 */
async function look(get, name) {
  stopCamera();
  latest += 1;
  const number = latest;
  showError("");
  say("Classifying …");
  try {
    const blob = await get();
    if (number !== latest) return;
    show(blob, name);
    const network = await classifier;
    const answer = await network.classify(blob);
    if (number !== latest) return;
    tell(network, answer, (first) => `Most probable: ${first.name}, ${percent(first.probability)}`);
  } catch (error) {
    if (number === latest) {
      clear();
      complain(error);
    }
  }
}

/** @param {Blob} blob @param {string} name */
function show(blob, name) {
  const image = element("picture");
  URL.revokeObjectURL(image.src);
  image.onload = () => {
    image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
    fill(image);
  };
  image.src = URL.createObjectURL(blob);
  image.alt = name;
}

/**
 * Show an answer. The caller knows whether it is for an image or the camera, which may be starting meanwhile.
 * @param {import("./classifier.js").Classifier} network
 * @param {import("./classifier.js").Answer} answer
 * @param {(first: {name: string, probability: number}) => string} words the status text for the first guess
 */
function tell(network, answer, words) {
  const guesses = network.best(answer, SHOWN);
  showAnswer(guesses);
  timing.add(answer, network.threads);
  say(words(guesses[0]));
}

/** Show a picture, the camera or (null) neither. @param {HTMLElement | null} shown */
function fill(shown) {
  for (const id of ["hint", "picture", "film"]) element(id).hidden = element(id) !== (shown ?? element("hint"));
  element("stage").classList.toggle("full", shown !== null);
}

function clear() {
  element("picture").onload = null; // ignore a picture that is still loading
  fill(null);
  say("");
  showAnswer([]);
}

/** @param {unknown} error */
function complain(error) {
  showError(error instanceof PageError ? error.message : "This image could not be classified; try another one.");
}

async function startCamera() {
  if (starting) return;
  latest += 1;
  const number = latest;
  showError("");
  try {
    starting = true;
    await camera.start(stopCamera).finally(() => { starting = false; });
    if (number !== latest) { // an image was chosen while the browser asked
      camera.stop();
      return;
    }
    element("picture").onload = null;
    fill(element("film"));
    element("camera").textContent = "Stop camera";
    const network = await classifier;
    await camera.each(async () => {
      const answer = await network.classify(element("film"));
      if (camera.running && number === latest) tell(network, answer, (first) => `The camera sees: ${first.name}`);
    });
  } catch (error) {
    if (number !== latest) return;
    stopCamera();
    complain(error);
  }
}

function stopCamera() {
  if (camera.running) {
    clear();
    say("The camera is off.");
  }
  camera.stop();
  element("camera").textContent = "Start camera";
}

/** Classify the first of the chosen, dropped or pasted files. @param {FileList | undefined} files */
function take(files) {
  const file = files?.[0];
  if (file) look(async () => file, file.name || "Pasted image");
}

element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", () => {
  take(element("file").files);
  element("file").value = ""; // the same file may be chosen again
});
element("camera").addEventListener("click", () => (camera.running ? stopCamera() : startCamera()));
addEventListener("paste", (event) => take(event.clipboardData?.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("stage").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) element("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("stage").classList.remove("over");
  take(event.dataTransfer?.files);
});
