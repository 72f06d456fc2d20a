// Classifies images with an ONNX file of fbnetv3-zoo. Class names and preprocessing are read from the file.
//     node classify.js model.onnx cat.jpg dog.png
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import sharp from "sharp";

const ONE = 1 << 22; // fixed-point 1 of the weights with which pixels are resized
const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0);
const FILTERS = {
  bilinear: { reach: 1, at: (x) => Math.max(0, 1 - x) },
  bicubic: { reach: 2, at: cubic },
};

/** The fields of a protobuf message: number, and content of those that have a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    if (key % 8 === 0) varint();
    else if (key % 8 === 1) at += 8;
    else if (key % 8 === 5) at += 4;
    else if (key % 8 === 2) {
      const length = varint();
      yield [key >> 3, bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("not an ONNX file");
  }
}

/** The metadata of an ONNX file, which onnxruntime-node does not show: metadata_props of ModelProto. */
function metadataOf(bytes) {
  const entries = {};
  for (const [number, content] of fields(bytes)) {
    if (number !== 14) continue;
    const [key, value] = [...fields(content)].map(([, text]) => new TextDecoder().decode(text));
    entries[key] = value;
  }
  if (entries.format !== "fbnetv3_zoo") throw new Error("the model has no metadata of fbnetv3-zoo");
  return { preprocess: JSON.parse(entries.preprocess), classNames: JSON.parse(entries.class_names) };
}

/** Pixels as gray or RGB: upright, transparent ones over white, whatever the color profile. */
async function readImage(path, channels) {
  const whole = sharp(path, { ignoreIcc: true }).autoOrient().flatten({ background: "white" }).toColorspace("srgb");
  const { data, info } = await whole.raw().toBuffer({ resolveWithObject: true });
  const size = { width: info.width, height: info.height, channels };
  if (info.channels === channels) return { ...size, data };
  const levels = new Uint8Array(info.width * info.height * channels);
  for (let n = 0; n < info.width * info.height; n++) {
    if (info.channels === 1) levels.fill(data[n], 3 * n, 3 * n + 3);
    else levels[n] = (data[3 * n] * 19595 + data[3 * n + 1] * 38470 + data[3 * n + 2] * 7471 + 0x8000) >> 16;
  }
  return { ...size, data: levels };
}

/** The pixels that make up each of `count` pixels from `offset` on, if a line of `old` is resized to `length`. */
function taps(old, length, offset, count, interpolation) {
  const scale = old / length;
  return Array.from({ length: count }, (_, n) => {
    const center = (n + offset + 0.5) * scale;
    if (old === length || interpolation === "nearest") return { start: Math.trunc(center), weights: [ONE] };
    const { reach, at } = FILTERS[interpolation];
    const stretch = Math.max(scale, 1);
    const start = Math.max(0, Math.trunc(center - reach * stretch + 0.5));
    const end = Math.min(old, Math.trunc(center + reach * stretch + 0.5));
    const values = Array.from({ length: end - start }, (_, k) => at(Math.abs(k + start - center + 0.5) / stretch));
    const total = values.reduce((sum, value) => sum + value, 0);
    return { start, weights: values.map((value) => Math.sign(value) * Math.round(Math.abs(value / total) * ONE)) };
  });
}

/** Resizes every row; the result is transposed. */
function across({ width, height, channels, data }, taps) {
  const out = new Uint8Array(height * taps.length * channels);
  for (let row = 0; row < height; row++) {
    taps.forEach(({ start, weights }, n) => {
      for (let channel = 0; channel < channels; channel++) {
        let sum = ONE >> 1;
        weights.forEach((weight, k) => (sum += data[(row * width + start + k) * channels + channel] * weight));
        out[(n * height + row) * channels + channel] = Math.min(255, Math.max(0, sum >> 22));
      }
    });
  }
  return { width: height, height: taps.length, channels, data: out };
}

/** The network's input: resized, cropped at the center, normalized; channel by channel, row by row. */
function networkInput(image, { resize, resolution, interpolation, mean, std }) {
  const shorter = Math.min(image.width, image.height);
  const [wide, high] = [image.width, image.height].map((side) => Math.floor((resize * side) / shorter));
  const [left, top] = [wide, high].map((side) => halfToEven(side - resolution));
  const turned = across(image, taps(image.width, wide, left, resolution, interpolation));
  const square = across(turned, taps(image.height, high, top, resolution, interpolation));
  const area = resolution * resolution;
  const { channels, data } = square;
  return Float32Array.from({ length: area * channels }, (_, n) => {
    const channel = Math.floor(n / area);
    return (data[(n % area) * channels + channel] / 255 - mean[channel]) / std[channel];
  });
}

function halfToEven(doubled) {
  const low = Math.floor(doubled / 2);
  return doubled % 2 !== 0 && low % 2 !== 0 ? low + 1 : low;
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

const [model, ...images] = process.argv.slice(2);
try {
  if (!images.length) throw new Error("usage: node classify.js MODEL.onnx IMAGE...");
  const bytes = await readFile(model);
  const { preprocess, classNames } = metadataOf(bytes);
  const session = await ort.InferenceSession.create(bytes);
  const channels = preprocess.mean.length;
  const shape = [1, channels, preprocess.resolution, preprocess.resolution];
  for (const path of images) {
    const input = new ort.Tensor("float32", networkInput(await readImage(path, channels), preprocess), shape);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    const probabilities = softmax(outputs[session.outputNames[0]].data);
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
    console.log(path);
    for (const n of order) {
      console.log(`  ${(100 * probabilities[n]).toFixed(2).padStart(6)}%  ${classNames?.[n] ?? n}`);
    }
  }
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
}
