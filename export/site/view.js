// Display of the card, the answer, times and errors.

/** @typedef {import("./classifier.js").Card} Card */
/** @typedef {import("./classifier.js").Guess} Guess */

const REMEMBERED = 9; // runs whose median is shown

/** @param {string} id @returns {any} */
export const element = (id) => document.getElementById(id);

/** @param {Card} card */
export function showCard(card) {
  const classes = card.class_names.length;
  const facts = [
    card.network,
    `${classes} ${classes === 1 ? "class" : "classes"}`,
    `${(card.bytes / 1e6).toFixed(1)} MB`,
    card.precision,
    card.licence && `license of the weights: ${card.licence}`,
    card.source && `weights: ${card.source}`,
  ];
  element("card").textContent = facts.filter(Boolean).join(" · ");
  document.title = `${card.network} · Image classifier`;
}

/** A probability in percent, with a non-breaking space. @param {number} probability */
export const percent = (probability) => `${(100 * probability).toFixed(1)}\u00a0%`;

/** Names in order with their bars. @param {Guess[]} guesses */
export function showAnswer(guesses) {
  const list = element("answer");
  while (list.children.length > guesses.length) list.lastChild.remove();
  while (list.children.length < guesses.length) list.append(row());
  guesses.forEach(({ name, probability }, n) => {
    const item = list.children[n];
    item.querySelector(".name").textContent = name;
    item.querySelector(".share").textContent = percent(probability);
    item.querySelector(".bar").style.width = `${100 * probability}%`;
  });
}

function row() {
  const item = document.createElement("li");
  const track = part("div", "track");
  track.setAttribute("aria-hidden", "true"); // it repeats the percentage
  track.append(part("div", "bar"));
  item.append(part("span", "name"), part("span", "share"), track);
  return item;
}

/** @param {string} tag @param {string} name */
function part(tag, name) {
  const created = document.createElement(tag);
  created.className = name;
  return created;
}

/** Show the status, which screen readers announce. @param {string} text */
export function say(text) {
  if (element("status").textContent !== text) element("status").textContent = text;
}

/** Show an error message; an empty one removes it. @param {string} text */
export function showError(text) {
  element("error").textContent = text;
}

/** Times of the last runs. */
export class Timing {
  /** @type {number[]} */
  #preparing = [];
  /** @type {number[]} */
  #running = [];

  /** @param {import("./classifier.js").Answer} answer @param {number} threads */
  add({ preparing, running }, threads) {
    this.#preparing = [...this.#preparing, preparing].slice(-REMEMBERED);
    this.#running = [...this.#running, running].slice(-REMEMBERED);
    const count = this.#running.length;
    const runs = count === 1 ? "one run" : `median of the last ${count} runs`;
    element("timing").textContent =
      `Network ${milliseconds(this.#running)}, preparing the image ${milliseconds(this.#preparing)} ` +
      `(${runs}; ${threads}\u00a0${threads === 1 ? "thread" : "threads"})`;
  }
}

/** @param {number[]} values */
function milliseconds(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  return `${middle < 100 ? middle.toFixed(1) : Math.round(middle)}\u00a0ms`;
}
