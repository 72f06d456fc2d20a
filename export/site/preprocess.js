// From pixels to the network's input, with exactly the levels of Pillow's resize of 8-bit images: fixed-point weights, one
// axis after the other, integers in between.

/**
 * The preprocessing in the model file.
 * @typedef {object} Preprocess
 * @property {number} resize length of the shorter side after resizing, in pixels
 * @property {number} resolution side of the central crop, in pixels
 * @property {"nearest" | "bilinear" | "bicubic"} interpolation
 * @property {number[]} mean one value per channel, for levels scaled to [0, 1]
 * @property {number[]} std the same
 */

/**
 * Pixels that are read in parts: `read` returns 4 bytes (red, green, blue, opaque) per pixel, row by row.
 * @typedef {object} Source
 * @property {number} width
 * @property {number} height
 * @property {(left: number, top: number, width: number, height: number) => Uint8ClampedArray} read
 */

/**
 * For each output pixel of a line: the first of its input pixels, their number, and their weights (`longest` entries
 * each). `first` and `end` bound all input pixels.
 * @typedef {object} Taps
 * @property {Int32Array} starts
 * @property {Int32Array} counts
 * @property {Int32Array} weights
 * @property {number} longest
 * @property {number} first
 * @property {number} end
 */

const BITS = 22; // of a weight's fraction
const ONE = 1 << BITS;
const LUMA = [19595, 38470, 7471]; // red, green, blue in gray, in 65536ths
const STRIP = 1 << 18; // pixels read at a time

/** How far each filter reaches, and its value at a distance, in pixels of the smaller image. */
const FILTERS = {
  bilinear: { reach: 1, at: (/** @type {number} */ x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, at: cubic },
};

/** @param {number} x */
function cubic(x) {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/**
 * Size after resizing, and left and top of the square cut from it.
 * @param {number} width
 * @param {number} height
 * @param {Preprocess} preprocess
 */
export function frame(width, height, { resize, resolution }) {
  const short = Math.min(width, height);
  const whole = { width: Math.floor((resize * width) / short), height: Math.floor((resize * height) / short) };
  return {
    ...whole,
    left: halfToEven(whole.width - resolution),
    top: halfToEven(whole.height - resolution),
  };
}

/** Half of an integer, rounded to even like in Python. @param {number} doubled */
function halfToEven(doubled) {
  const low = Math.floor(doubled / 2);
  return doubled % 2 !== 0 && low % 2 !== 0 ? low + 1 : low;
}

/**
 * The network's input, channel by channel, row by row: float32 of 1 or 3 channels of `resolution` x `resolution`.
 * @param {Source} source
 * @param {Preprocess} preprocess
 * @returns {Float32Array}
 */
export function tensorOf(source, preprocess) {
  return normalize(crop(source, preprocess), preprocess);
}

/**
 * The network's input before normalization: 1 or 3 bytes per pixel, row by row, `resolution` x `resolution` pixels.
 * @param {Source} source
 * @param {Preprocess} preprocess
 * @returns {Uint8Array}
 */
export function crop(source, preprocess) {
  const { width, height, left, top } = frame(source.width, source.height, preprocess);
  const { resolution, interpolation } = preprocess;
  const channels = preprocess.mean.length;
  const across = taps(source.width, width, left, resolution, interpolation);
  const down = taps(source.height, height, top, resolution, interpolation);
  // Pillow 13 resizes the height of narrow images before their width.
  const upright = source.height > 2 * source.width && height < source.height;
  return upright ? downFirst(source, across, down, channels) : acrossFirst(source, across, down, channels);
}

/**
 * @param {Source} source
 * @param {Taps} across
 * @param {Taps} down
 * @param {number} channels
 */
function acrossFirst(source, across, down, channels) {
  const side = across.starts.length;
  const width = across.end - across.first;
  const rows = Math.max(1, Math.floor(STRIP / width));
  const between = new Uint8Array((down.end - down.first) * side * channels);
  for (let top = down.first; top < down.end; top += rows) {
    const count = Math.min(rows, down.end - top);
    const strip = levels(source.read(across.first, top, width, count), channels);
    const target = between.subarray((top - down.first) * side * channels);
    blend(strip.data, strip.step, width * strip.step, count, across, channels, target, channels, side * channels);
  }
  const out = new Uint8Array(side * side * channels);
  blend(between, side * channels, channels, side, down, channels, out, side * channels, channels);
  return out;
}

/**
 * @param {Source} source
 * @param {Taps} across
 * @param {Taps} down
 * @param {number} channels
 */
function downFirst(source, across, down, channels) {
  const side = down.starts.length;
  const width = across.end - across.first;
  const height = down.end - down.first;
  const columns = Math.max(1, Math.floor(STRIP / height));
  const between = new Uint8Array(side * width * channels);
  for (let left = across.first; left < across.end; left += columns) {
    const count = Math.min(columns, across.end - left);
    const strip = levels(source.read(left, down.first, count, height), channels);
    const target = between.subarray((left - across.first) * channels);
    blend(strip.data, count * strip.step, strip.step, count, down, channels, target, width * channels, channels);
  }
  const out = new Uint8Array(side * side * channels);
  blend(between, channels, width * channels, side, across, channels, out, channels, side * channels);
  return out;
}

/**
 * Bytes of the channels in use, and the distance of two pixels in bytes.
 * @param {Uint8ClampedArray} pixels
 * @param {number} channels
 * @returns {{data: Uint8Array | Uint8ClampedArray, step: number}}
 */
function levels(pixels, channels) {
  if (channels === 3) return { data: pixels, step: 4 };
  const data = new Uint8Array(pixels.length / 4);
  for (let n = 0, at = 0; n < data.length; n += 1, at += 4) {
    data[n] = (pixels[at] * LUMA[0] + pixels[at + 1] * LUMA[1] + pixels[at + 2] * LUMA[2] + 0x8000) >> 16;
  }
  return { data, step: 1 };
}

/**
 * Resize every line of `data` by `taps`; steps are in bytes.
 * @param {Uint8Array | Uint8ClampedArray} data begins with the pixel `taps.first` of the first line
 * @param {number} step from a pixel of a line to the next
 * @param {number} lineStep from a line to the next
 * @param {number} lines
 * @param {Taps} taps
 * @param {number} channels
 * @param {Uint8Array} out
 * @param {number} outStep
 * @param {number} outLineStep
 */
function blend(data, step, lineStep, lines, taps, channels, out, outStep, outLineStep) {
  const { starts, counts, weights, longest, first } = taps;
  for (let line = 0; line < lines; line += 1) {
    for (let n = 0; n < starts.length; n += 1) {
      const from = line * lineStep + (starts[n] - first) * step;
      const to = line * outLineStep + n * outStep;
      for (let channel = 0; channel < channels; channel += 1) {
        let sum = ONE >> 1;
        for (let k = 0, at = from + channel; k < counts[n]; k += 1, at += step) {
          sum = (sum + Math.imul(data[at], weights[n * longest + k])) | 0;
        }
        const level = sum >> BITS;
        out[to + channel] = level < 0 ? 0 : level > 255 ? 255 : level;
      }
    }
  }
}

/**
 * The taps of `count` pixels starting at `offset`, when a line of `old` pixels is resized to `length`.
 * @param {number} old
 * @param {number} length
 * @param {number} offset
 * @param {number} count
 * @param {Preprocess["interpolation"]} interpolation
 * @returns {Taps}
 */
function taps(old, length, offset, count, interpolation) {
  if (old === length) return single(Int32Array.from({ length: count }, (_, n) => n + offset));
  if (interpolation === "nearest") return single(nearest(old, length).slice(offset, offset + count));
  const { reach, at } = FILTERS[interpolation];
  const scale = old / length;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const longest = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const counts = new Int32Array(count);
  const weights = new Int32Array(count * longest);
  for (let n = 0; n < count; n += 1) {
    const center = (n + offset + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(old, Math.trunc(center + support + 0.5));
    const values = Array.from({ length: end - start }, (_, k) => at((k + start - center + 0.5) * (1 / stretch)));
    const total = values.reduce((sum, value) => sum + value, 0);
    values.forEach((value, k) => {
      const weight = total === 0 ? value : value / total;
      weights[n * longest + k] = Math.trunc(weight * ONE + (weight < 0 ? -0.5 : 0.5));
    });
    starts[n] = start;
    counts[n] = end - start;
  }
  return { starts, counts, weights, longest, first: starts[0], end: starts[count - 1] + counts[count - 1] };
}

/** Taps of one pixel each. @param {Int32Array} starts @returns {Taps} */
function single(starts) {
  const counts = new Int32Array(starts.length).fill(1);
  const weights = new Int32Array(starts.length).fill(ONE);
  return { starts, counts, weights, longest: 1, first: starts[0], end: starts[starts.length - 1] + 1 };
}

/** The pixel out of `old` for each of `length`. @param {number} old @param {number} length */
function nearest(old, length) {
  const step = old / length;
  const chosen = new Int32Array(length);
  let center = step / 2; // accumulated as in Pillow, with the same rounding errors
  for (let n = 0; n < length; n += 1, center += step) chosen[n] = Math.min(Math.trunc(center), old - 1);
  return chosen;
}

/**
 * @param {Uint8Array} pixels
 * @param {Preprocess} preprocess
 */
function normalize(pixels, { mean, std }) {
  const channels = mean.length;
  const area = pixels.length / channels;
  const out = new Float32Array(pixels.length);
  for (let channel = 0; channel < channels; channel += 1) {
    const [middle, spread] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    // As in NumPy's float32: every step is rounded.
    const table = Float32Array.from({ length: 256 }, (_, level) => {
      return Math.fround(Math.fround(Math.fround(level / 255) - middle) / spread);
    });
    for (let n = 0; n < area; n += 1) out[channel * area + n] = table[pixels[n * channels + channel]];
  }
  return out;
}
