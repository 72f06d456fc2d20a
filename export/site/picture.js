// Pictures as pixels: image files, and frames of the camera.

/** @typedef {import("./preprocess.js").Source} Source */

/** Largest file that is opened, in bytes, and largest picture, in pixels. */
export const MOST_BYTES = 100e6;
export const MOST_PIXELS = 100e6;

/** An error that the user can fix, with a message of one sentence. */
export class PageError extends Error {}

/**
 * The picture in an image file, turned upright by its EXIF orientation. Colors are not converted.
 * @param {Blob} blob
 * @returns {Promise<ImageBitmap>}
 */
export async function decode(blob) {
  const name = blob instanceof File && blob.name ? blob.name : "This";
  if (blob.size > MOST_BYTES) {
    throw new PageError(`${name} is too large: over ${MOST_BYTES / 1e6} MB; make it smaller first.`);
  }
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
  }).catch(() => {
    throw new PageError(`${name} is not an image that this browser can read; try a PNG, JPEG or WebP file.`);
  });
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    bitmap.close();
    throw new PageError(`${name} is too large: over ${MOST_PIXELS / 1e6} million pixels; make it smaller first.`);
  }
  return bitmap;
}

/**
 * The pixels of a picture or of the camera's frame, on a white background.
 * @param {ImageBitmap | HTMLVideoElement} picture
 * @returns {Source}
 */
export function pixelsOf(picture) {
  const film = picture instanceof HTMLVideoElement;
  const canvas = document.createElement("canvas");
  return {
    width: film ? picture.videoWidth : picture.width,
    height: film ? picture.videoHeight : picture.height,
    read(left, top, width, height) {
      canvas.width = width;
      canvas.height = height;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      if (context === null) throw new PageError("This browser gives no canvas of that size; take a smaller image.");
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
      context.drawImage(picture, -left, -top);
      return context.getImageData(0, 0, width, height).data;
    },
  };
}
